//! The manual says what the program does: the options and commands of the pages are those of the command line, both
//! ways, and the examples run.

mod common;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cascade::cli::Cli;
use cascade::config;
use clap::CommandFactory;
use common::scene::Scene;
use common::trackers::nobody_there;
use nix::sys::signal::{Signal, killpg};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man")
}

/// A page of the manual.
struct Page {
    /// As in `cascade-get`.
    name: String,
    /// As in `1`.
    section: String,
    text: String,
}

impl Page {
    fn all() -> Vec<Self> {
        let mut pages: Vec<Self> = fs::read_dir(directory())
            .expect("the manual is in man/")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                let (name, section) = file.rsplit_once('.').expect("NAME.SECTION");
                Self {
                    name: name.into(),
                    section: section.into(),
                    text: fs::read_to_string(&path).expect("a page can be read"),
                }
            })
            .collect();
        pages.sort_by(|a, b| a.name.cmp(&b.name));
        pages
    }

    /// The lines of a section.
    fn section(&self, title: &str) -> Vec<&str> {
        self.text
            .lines()
            .skip_while(|line| *line != format!(".Sh {title}"))
            .skip(1)
            .take_while(|line| !line.starts_with(".Sh "))
            .collect()
    }

    /// The command that the page describes.
    fn command(&self) -> Option<&str> {
        let describes = ["1", "8"].contains(&&self.section[..]);
        self.name.strip_prefix("cascade-").filter(|_| describes)
    }

    /// The options of the page as their list has them, such as `Fl b Ar SIZE , Fl -block-size Ar SIZE`.
    fn options(&self) -> BTreeSet<String> {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix(".It "))
            .filter(|item| item.starts_with("Fl "))
            .map(str::to_owned)
            .collect()
    }

    /// The options that the synopsis names, as in `b` or `-no-serve`.
    fn synopsis(&self) -> BTreeSet<String> {
        let mut options = BTreeSet::new();
        for line in self.section("SYNOPSIS") {
            let mut words = line.split_whitespace();
            while words.any(|word| word == "Fl") {
                match words.next() {
                    Some(long) if long.starts_with('-') => {
                        options.insert(long.into());
                    }
                    Some(letters) => options.extend(letters.chars().map(String::from)),
                    None => {}
                }
            }
        }
        options
    }
}

/// The options of a command, each as the manual would list it.
fn options(command: &clap::Command) -> BTreeSet<String> {
    listed_options(command)
        .map(|option| {
            let value = match option.get_value_names() {
                Some([name, ..]) if option.get_action().takes_values() => format!(" Ar {name}"),
                _ => String::new(),
            };
            let short = option.get_short().map(|short| format!("Fl {short}{value}"));
            let long = option.get_long().map(|long| format!("Fl -{long}{value}"));
            short
                .into_iter()
                .chain(long)
                .collect::<Vec<_>>()
                .join(" , ")
        })
        .collect()
}

/// The commands that are there for users and have a page: the first page describes `help`.
fn commands(cli: &clap::Command) -> BTreeSet<&str> {
    cli.get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
        .map(clap::Command::get_name)
        .collect()
}

/// A command and, where it has some, the commands within it.
fn with_nested(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    let nested = command
        .get_subcommands()
        .filter(|nested| nested.get_name() != "help");
    std::iter::once(command).chain(nested)
}

/// Each command has `--help` and `--version`, which the first page describes.
fn listed_options(command: &clap::Command) -> impl Iterator<Item = &clap::Arg> {
    with_nested(command)
        .flat_map(clap::Command::get_arguments)
        .filter(|argument| !argument.is_positional())
        .filter(|option| !["help", "version"].contains(&option.get_id().as_str()))
}

#[test]
fn each_command_has_a_page_and_each_page_of_a_command_has_its_command() {
    let pages = Page::all();
    let described: BTreeSet<&str> = pages.iter().filter_map(Page::command).collect();
    let cli = Cli::command();
    assert_eq!(described, commands(&cli));
}

#[test]
fn the_first_page_names_each_command() {
    let pages = Page::all();
    let first = pages
        .iter()
        .find(|page| page.name == "cascade" && page.section == "1");
    let items: BTreeSet<&str> = first
        .expect("cascade.1")
        .section("DESCRIPTION")
        .into_iter()
        .filter_map(|line| line.strip_prefix(".It Ic "))
        .collect();
    let cli = Cli::command();
    assert_eq!(items, commands(&cli));
}

#[test]
fn the_options_of_the_pages_are_those_of_the_command_line() {
    // What clap adds by itself (help, version) is only there once the command is built.
    let mut cli = Cli::command();
    cli.build();
    for page in Page::all() {
        let Some(name) = page.command() else { continue };
        let command = cli.find_subcommand(name).expect("a page has its command");
        assert_eq!(page.options(), options(command), "cascade-{name}");
    }
}

#[test]
fn the_synopsis_of_each_page_names_all_options() {
    let cli = Cli::command();
    for page in Page::all() {
        let Some(name) = page.command() else { continue };
        let command = cli.find_subcommand(name).expect("a page has its command");
        let options: BTreeSet<String> = listed_options(command)
            .map(|option| match (option.get_short(), option.get_long()) {
                (Some(short), _) => short.to_string(),
                (None, long) => format!("-{}", long.unwrap_or_default()),
            })
            .collect();
        assert_eq!(page.synopsis(), options, "cascade-{name}");
    }
}

#[test]
fn the_first_page_refers_to_each_other_page_and_no_page_to_one_that_is_not_there() {
    let pages = Page::all();
    let title = |page: &Page| format!("{} {}", page.name, page.section);
    let there: BTreeSet<String> = pages.iter().map(title).collect();
    let references = |lines: Vec<&str>| -> BTreeSet<String> {
        lines
            .into_iter()
            .filter_map(|line| line.strip_prefix(".Xr "))
            .map(|words| words.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .filter(|title| title.starts_with("cascade"))
            .collect()
    };
    for page in &pages {
        let dangling = &references(page.text.lines().collect()) - &there;
        assert!(dangling.is_empty(), "{}: {dangling:?}", title(page));
        assert!(page.text.starts_with(".Dd "), "{}: no date", title(page));
    }
    let first = pages.iter().find(|page| title(page) == "cascade 1");
    let mut expected = there.clone();
    expected.remove("cascade 1");
    let referred = references(first.expect("cascade.1").section("SEE ALSO"));
    assert_eq!(referred, expected);
}

/// The commands of the examples, as a script. Where a command is put into the background, a reader would see where
/// it listens, or what to type elsewhere, before typing on; so the script waits for that.
fn script(page: &Page) -> String {
    let mut script = "set -e
listens() {
    tries=0
    until grep -qE '^(listening on|cascade get) ' \"$1\"; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { echo \"nobody listens: $1\" >&2; exit 1; }
        sleep 0.05
    done
}
"
    .to_owned();
    let mut literal = false;
    let mut servers = 0;
    for line in page.section("EXAMPLES") {
        match line {
            ".Ed" => literal = false,
            _ if line.starts_with(".Bd -literal") => literal = true,
            _ => {}
        }
        let Some(command) = line.strip_prefix("$ ").filter(|_| literal) else {
            continue;
        };
        match command.strip_suffix('&') {
            Some(server) => {
                servers += 1;
                let output = format!("../listens{servers}");
                // $! stays that of the server: listens starts nothing in the background.
                script += &format!(": > {output}\n{server} > {output} &\nlistens {output}\n");
            }
            None => script += &format!("{}\n", command.replace("\\e", "\\")),
        }
    }
    for named in ["127.0.0.1:8888", "127.0.0.1:9000"] {
        let free = nobody_there().to_string();
        script = script.replace(named, &free);
        // As two words, too.
        script = script.replace(&named.replace(':', " "), &free.replace(':', " "));
    }
    script
}

/// Runs the examples of a page from the first to the last.
#[track_caller]
fn examples_run(name: &str, section: &str) {
    let pages = Page::all();
    let page = pages
        .iter()
        .find(|page| page.name == name && page.section == section)
        .expect("the page is there");
    let script = script(page);
    let scene = Scene::new();
    let place = scene.directory("place");
    fs::write(place.join("disk.img"), common::sample::random(5_000_000)).expect("disk.img");
    let binaries = Path::new(env!("CARGO_BIN_EXE_cascade")).parent();
    let path = format!(
        "{}:{}",
        binaries.expect("it has a directory").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let shell = scene
        .program("sh")
        .args(["-c", &format!("cd place\n{script}")])
        .env("PATH", path)
        .env("HOME", &place)
        .in_its_own_group()
        .start();
    let group = shell.pid();
    // The servers that an example started and that it does not stop end here, and so does a shell that takes too long.
    let done = std::panic::catch_unwind(|| shell.finish_within(Duration::from_secs(40)));
    let _ = killpg(group, Signal::SIGTERM);
    let _ = common::holds_within(Duration::from_secs(5), || scene.left().is_empty());
    scene.kill_all();
    match done {
        Ok(done) if done.status.success() => {
            assert!(!done.stderr.contains("panicked"), "{done:#?}");
        }
        Ok(done) => panic!("{script}\n{done:#?}"),
        Err(_) => panic!("too long:\n{script}"),
    }
}

#[test]
fn the_examples_of_cascade_run() {
    examples_run("cascade", "1");
}

#[test]
fn the_examples_of_create_run() {
    examples_run("cascade-create", "1");
}

#[test]
fn the_examples_of_info_run() {
    examples_run("cascade-info", "1");
}

#[test]
fn the_examples_of_verify_run() {
    examples_run("cascade-verify", "1");
}

#[test]
fn the_examples_of_tracker_run() {
    examples_run("cascade-tracker", "8");
}

#[test]
fn the_examples_of_list_run() {
    examples_run("cascade-list", "1");
}

#[test]
fn the_examples_of_get_run() {
    examples_run("cascade-get", "1");
}

#[test]
fn the_examples_of_peer_run() {
    examples_run("cascade-peer", "1");
}

#[test]
fn the_examples_of_share_run() {
    examples_run("cascade-share", "1");
}

#[test]
fn the_examples_of_status_run() {
    examples_run("cascade-status", "1");
}

#[test]
fn the_examples_of_compare_run() {
    examples_run("cascade-compare", "1");
}

#[test]
fn the_examples_of_completions_run() {
    examples_run("cascade-completions", "1");
}

#[test]
fn the_examples_of_echo_run() {
    examples_run("cascade-echo", "1");
}

#[test]
fn the_examples_of_the_file_format_run() {
    examples_run("cascade", "5");
}

#[test]
fn the_examples_of_the_configuration_run() {
    examples_run("cascade.toml", "5");
}

#[test]
fn the_configurations_that_the_pages_show_can_be_understood() {
    let scene = Scene::new();
    let mut seen = 0;
    for page in Page::all() {
        let mut blocks = page.text.split(".Bd -literal");
        blocks.next();
        for block in blocks {
            let text = block.split(".Ed").next().unwrap_or_default();
            let text = text.split_once('\n').map_or("", |(_, text)| text);
            let daemon = match text {
                text if text.starts_with("# /etc/cascade/tracker.toml") => "tracker",
                text if text.starts_with("# /etc/cascade/peer.toml") => "peer",
                text if text.starts_with("{\n  \"port\"") => "tracker",
                _ => continue,
            };
            let path = scene.path("shown");
            fs::write(&path, text).expect("a file");
            let words = ["cascade", daemon, "-c"].map(OsString::from).into_iter();
            let words: Vec<OsString> = words.chain([path.into()]).collect();
            let understood = config::understand(&words, &|path| fs::File::open(path));
            if let Err(error) = understood {
                panic!("{}.{}: {error}\n{text}", page.name, page.section);
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 4, "two of cascade.toml(5), two of cascade-tracker(8)");
}

#[test]
fn the_examples_of_each_page_have_a_test() {
    let with_examples: BTreeSet<String> = Page::all()
        .iter()
        .filter(|page| {
            page.section("EXAMPLES")
                .iter()
                .any(|line| line.starts_with("$ "))
        })
        .map(|page| format!("{}.{}", page.name, page.section))
        .collect();
    let tested = [
        "cascade.1",
        "cascade.5",
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
        "cascade-tracker.8",
        "cascade-verify.1",
        "cascade.toml.5",
    ];
    assert_eq!(with_examples, tested.map(String::from).into());
}
