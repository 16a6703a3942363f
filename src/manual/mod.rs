//! The manual pages, compiled in: where man(1) or the pages are missing, the program shows them itself.

mod inline;
mod layout;

/// The sources of the pages, by file name, in mdoc(7).
macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../man/", $name)))),*]
    };
}

/// All pages: `NAME.SECTION`, and the source.
pub const PAGES: &[(&str, &str)] = pages![
    "cascade.1",
    "cascade-compare.1",
    "cascade-completions.1",
    "cascade-create.1",
    "cascade-echo.1",
    "cascade-get.1",
    "cascade-info.1",
    "cascade-list.1",
    "cascade-peer.1",
    "cascade-share.1",
    "cascade-status.1",
    "cascade-verify.1",
    "cascade.5",
    "cascade.toml.5",
    "cascade-protocol.7",
    "cascade-tracker.8",
];

/// A page as plain text; nothing where there is none of this name.
///
/// ```
/// let page = cascade::manual::page("cascade-get", Some("1")).expect("there is one");
/// assert!(page.contains("cascade-get - download files"));
/// ```
pub fn page(name: &str, section: Option<&str>) -> Option<String> {
    let is_it = |file: &str| {
        let (of_file, number) = file.rsplit_once('.').unwrap_or((file, ""));
        of_file == name && section.is_none_or(|section| section == number)
    };
    let (_, source) = PAGES.iter().find(|(file, _)| is_it(file))?;
    Some(layout::render(source))
}
