//! A tracker's status as an HTML page: no scripts, no external resources, light and dark after the reader's preference.
//!
//! Strangers contribute addresses and hashes only, which contain no special characters of HTML; they are escaped
//! nevertheless.

use std::time::{Duration, UNIX_EPOCH};

use indicatif::HumanBytes;

use super::report::{Registered, Status, Tracked, Tracker};
use super::words::{coarse, in_words, plural, share};
use crate::service::Outcome;
use crate::text::{escape, escape_markup, grouped};

/// Colours, type and layout.
const STYLE: &str = include_str!("page.css");
/// Seconds after which a browser reloads it.
const RELOAD: u32 = 15;
/// A file with more peers than this has its list collapsed at first.
const SHOWN: usize = 40;

/// The whole page.
pub fn render(status: &Status, tracker: &Tracker) -> String {
    let body = [
        head(status),
        tiles(status, tracker),
        files(status, tracker),
        outcomes(status),
        foot(status),
    ]
    .concat();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"refresh\" content=\"{RELOAD}\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>cascade tracker: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        title = plural(tracker.peers.into(), "peer"),
    )
}

fn head(status: &Status) -> String {
    let listening: Vec<String> = status
        .about
        .listening
        .iter()
        .map(ToString::to_string)
        .collect();
    let now = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(status.now));
    format!(
        "<header>\n<h1>Cascade tracker</h1>\n\
         <p class=\"lead\">at {at}; as it was at <time>{now}</time>, up {up}. \
         The page loads itself again every {RELOAD} seconds.</p>\n</header>\n",
        at = escape_markup(&listening.join(", ")),
        up = coarse(status.now.saturating_sub(status.about.started)),
    )
}

fn tiles(status: &Status, tracker: &Tracker) -> String {
    let (connections, files) = (&status.connections, tracker.tracked);
    let rate = HumanBytes(connections.sent_per_second as u64);
    let tiles = [
        (
            "Peers",
            grouped(tracker.peers.into()),
            format!("room for {}", grouped(tracker.capacity.into())),
        ),
        (
            "Files",
            grouped(files),
            if tracker.open { "any file" } else { "named" }.into(),
        ),
        (
            "Connections",
            grouped(connections.now),
            format!("{} ever", grouped(connections.accepted)),
        ),
        (
            "Sent",
            HumanBytes(connections.sent).to_string(),
            format!("{rate}/s"),
        ),
    ];
    let tiles: String = tiles
        .iter()
        .map(|(what, figure, more)| {
            format!("<div><dt>{what}</dt><dd>{figure}</dd><dd>{more}</dd></div>\n")
        })
        .collect();
    format!("<dl class=\"tiles\">\n{tiles}</dl>\n")
}

fn files(status: &Status, tracker: &Tracker) -> String {
    let shown: String = tracker
        .files
        .iter()
        .map(|item| file(item, status.now))
        .collect();
    let left = tracker.tracked.saturating_sub(tracker.files.len() as u64);
    let more = match left {
        0 => String::new(),
        left => format!(
            "<p>And {}, with fewer peers.</p>\n",
            plural(left, "more file")
        ),
    };
    let none = match tracker.files.is_empty() {
        true => "<p>No peer has registered for any file yet.</p>\n",
        false => "",
    };
    format!("<section id=\"files\">\n<h2>Files</h2>\n{none}{shown}{more}</section>\n")
}

/// What a file is called; where that is not known, its hash.
fn heading(name: Option<&str>, hash: &str) -> String {
    let hash = escape_markup(hash);
    match name {
        Some(name) => {
            let name = escape_markup(&escape(name.as_bytes()));
            format!("<h3>{name}</h3>\n<p class=\"hash\">{hash}</p>\n")
        }
        None => format!("<h3>{hash}</h3>\n"),
    }
}

fn file(file: &Tracked, now: u64) -> String {
    format!(
        "<article>\n{name}<p>{words}</p>\n{strip}{peers}</article>\n",
        name = heading(file.name.as_deref(), &file.hash),
        words = escape_markup(&in_words(file)),
        strip = strip(file),
        peers = peers(file, now),
    )
}

/// How many have all, how many a part, and of how many it is not known.
fn strip(file: &Tracked) -> String {
    let listed = &file.registered;
    if listed.is_empty() {
        return String::new();
    }
    let full = file.complete as usize;
    let known = |peer: &&Registered| peer.complete != Some(true) && peer.present.is_some();
    let part = listed.iter().filter(known).count();
    let open = (file.peers as usize).saturating_sub(full + part);
    let kinds = [
        ("full", full, "with all of it"),
        ("part", part, "with a part"),
        ("open", open, "of whom it is not known"),
    ];
    let there = || kinds.iter().filter(|(_, count, _)| *count > 0);
    let spans: String = there()
        .map(|(class, count, _)| format!("<span class=\"{class}\" style=\"flex:{count}\"></span>"))
        .collect();
    let legend: String = there()
        .map(|(class, count, what)| format!("<li class=\"{class}\">{count} {what}</li>"))
        .collect();
    format!("<div class=\"strip\">{spans}</div>\n<ul class=\"legend\">{legend}</ul>\n")
}

fn peers(file: &Tracked, now: u64) -> String {
    if file.registered.is_empty() {
        return String::new();
    }
    let rows: String = file
        .registered
        .iter()
        .map(|peer| row(file, peer, now))
        .collect();
    let left = (file.peers as usize).saturating_sub(file.registered.len());
    let more = match left {
        0 => String::new(),
        left => format!("<p>And {left} more.</p>\n"),
    };
    let open = if file.registered.len() <= SHOWN {
        " open"
    } else {
        ""
    };
    format!(
        "<details{open}>\n<summary>{}</summary>\n<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">address</th>\
         <th scope=\"col\" class=\"text\">how complete</th><th scope=\"col\">last seen</th><th scope=\"col\"></th></tr></thead>\n\
         <tbody>\n{rows}</tbody></table></div>\n{more}</details>\n",
        plural(file.peers.into(), "peer"),
    )
}

fn row(file: &Tracked, peer: &Registered, now: u64) -> String {
    let how_much = match share(file, peer) {
        (Some(share), text) => format!(
            "<span class=\"bar {class}\"><i style=\"width:{width:.1}%\"></i></span><b>{text}</b>",
            class = if share >= 1.0 { "full" } else { "part" },
            width = share * 100.0,
            text = escape_markup(&text),
        ),
        (None, text) => format!("<span class=\"none\">{}</span>", escape_markup(&text)),
    };
    let seen = coarse(now.saturating_sub(peer.last_seen.into()));
    let good = match peer.good {
        true => "<span class=\"vouched\">good</span>",
        false => "",
    };
    format!(
        "<tr><th scope=\"row\">{}</th><td class=\"share\"><div>{how_much}</div></td><td>{seen} ago</td><td>{good}</td></tr>\n",
        peer.address
    )
}

fn outcomes(status: &Status) -> String {
    let (connections, ended) = (&status.connections, status.connections.ended);
    let mut rows: String = ended
        .each()
        .iter()
        .map(|(outcome, _, count)| {
            let bad = *outcome == Outcome::Crashed && *count > 0;
            let class = if bad { " class=\"bad\"" } else { "" };
            format!(
                "<tr><th scope=\"row\">{}</th><td{class}>{}</td></tr>\n",
                outcome.describe(),
                grouped(*count)
            )
        })
        .collect();
    rows += &format!(
        "<tr><th scope=\"row\">turned away</th><td>{}</td></tr>\n",
        grouped(connections.turned_away)
    );
    format!(
        "<section id=\"connections\">\n<h2>How connections ended</h2>\n<div class=\"wide\"><table>\n<tbody>\n{rows}</tbody></table></div>\n</section>\n"
    )
}

fn foot(status: &Status) -> String {
    format!(
        "<footer><p>cascade {}, process {}. For programs: <a href=\"/status.json\">status.json</a>, \
         <a href=\"/metrics\">metrics</a>.</p></footer>\n",
        escape_markup(&status.about.version),
        status.about.pid
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::report::Role;
    use crate::status::tests;

    fn page() -> String {
        let status = tests::tracker();
        let Role::Tracker(tracker) = &status.role else {
            panic!("it is one");
        };
        render(&status, tracker)
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        for word in ["http://", "https://", "<script", "url(", "@import", "src="] {
            assert!(!page().contains(word), "{word}");
        }
        assert!(page().contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn each_file_and_each_peer_is_there_with_what_is_known() {
        let page = page();
        for part in [
            &*"ab".repeat(32),
            &*"cd".repeat(32),
            "192.0.2.7:9000",
            "<b>100 %</b>",
            "<b>35 %</b>",
            "<span class=\"none\">not known</span>",
            "1 with all of it",
            "1 with a part",
            "1 of whom it is not known",
            "1,019",
            "room for 65,536",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
    }

    #[test]
    fn every_element_is_closed_and_what_is_foreign_is_escaped() {
        let mut status = tests::tracker();
        status.about.version = "<script>&\"".into();
        let Role::Tracker(tracker) = &mut status.role else {
            panic!("it is one");
        };
        tracker.files[0].hash = "<script>".into();
        let tracker = tracker.clone();
        let page = render(&status, &tracker);
        assert!(!page.contains("<script>"), "{page}");
        for element in [
            "section", "article", "table", "div", "ul", "li", "tr", "td", "th", "dl", "details",
            "span", "p",
        ] {
            let opened = page.matches(&format!("<{element}>")).count()
                + page.matches(&format!("<{element} ")).count();
            let closed = page.matches(&format!("</{element}>")).count();
            assert_eq!(opened, closed, "{element}");
        }
    }
}
