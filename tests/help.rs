//! Help: the manual page of a topic, what is printed where there is none, and colours only where they are wanted.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cascade::cli::{Cli, PAGES};
use cascade::manual::{PAGES as PAGES_WITHIN, page};
use common::process::Finished;
use common::scene::Scene;

/// A man(1) that says what it was asked for and ends with status 7; with `-w` it says whether it would find the page.
fn man(scene: &Scene, finds: bool) -> PathBuf {
    let directory = scene.directory("programs");
    let looks = if finds { 0 } else { 16 };
    let script = format!(
        "#!/bin/sh
[ \"$1\" != -w ] || exit {looks}
echo \"man $*\"
echo \"MANPATH=$MANPATH\"
exit 7
"
    );
    let program = directory.join("man");
    fs::write(&program, script).expect("man");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("man can be run");
    directory
}

#[test]
fn help_is_the_manual_page_and_ends_as_man_does() {
    let scene = Scene::new();
    let programs = man(&scene, true);
    for (topic, page) in [
        ("get", "cascade-get"),
        ("tracker", "cascade-tracker"),
        ("cascade", "1 cascade"),
        ("help", "1 cascade"),
        ("format", "5 cascade"),
        ("protocol", "7 cascade-protocol"),
    ] {
        let help = scene.cascade("help").arg(topic).env("PATH", &programs);
        let help = help.run();
        assert_eq!(help.status.code(), Some(7), "{help:#?}");
        let first = help.stdout.lines().next();
        assert_eq!(first, Some(&*format!("man {page}")), "{help:#?}");
    }
}

#[test]
fn each_page_of_the_manual_is_the_help_of_a_topic() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let mut there: Vec<String> = fs::read_dir(&pages)
        .expect("the manual is in man/")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let cli = Cli::with_topics();
    let help = cli.find_subcommand("help").expect("help is a command");
    let topic = help.get_positionals().next().expect("it takes a topic");
    let mut reached: Vec<String> = topic
        .get_possible_values()
        .iter()
        .map(|value| {
            let topic = value.get_name();
            match PAGES.iter().find(|(named, _, _)| *named == topic) {
                Some((_, section, name)) => format!("{name}.{section}"),
                None => there
                    .iter()
                    .find(|page| {
                        page.rsplit_once('.')
                            .is_some_and(|(name, _)| name == format!("cascade-{topic}"))
                    })
                    .unwrap_or_else(|| panic!("no page for {topic}"))
                    .clone(),
            }
        })
        .collect();
    there.sort();
    reached.sort();
    reached.dedup();
    assert_eq!(reached, there);
}

#[test]
fn where_man_has_no_page_the_program_shows_its_own() {
    let scene = Scene::new();
    let programs = man(&scene, false);
    let nothing = scene.directory("nothing");
    let cli = Cli::with_topics();
    let help = cli.find_subcommand("help").expect("help is a command");
    let topic = help.get_positionals().next().expect("it takes a topic");
    for topic in topic.get_possible_values() {
        let topic = topic.get_name();
        // man finds nothing; there is no man.
        for path in [&programs, &nothing] {
            let help = scene.cascade("help").arg(topic).env("PATH", path).run();
            let text = help.assert_code(0).stdout;
            let parts = ["\nNAME\n     cascade", "\nDESCRIPTION\n", "\nSEE ALSO\n"];
            let is_page = parts.iter().all(|part| text.contains(part));
            assert!(is_page, "{topic}: {text}");
            // Examples are as long as they are.
            let is_prose = |line: &str| line.split_whitespace().count() > 12;
            let is_long = |line: &&str| line.len() > 80 && is_prose(line);
            assert_eq!(text.lines().find(is_long), None, "{topic}");
        }
    }
    let summary = scene.cascade("--help").run();
    assert_eq!(scene.cascade("help").run().stdout, summary.stdout);
}

#[test]
fn the_pages_that_are_compiled_in_say_what_the_others_do() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let there = fs::read_dir(&pages).expect("the manual").count();
    assert_eq!(there, PAGES_WITHIN.len(), "each page is compiled in");
    for (file, _) in PAGES_WITHIN {
        let mandoc = std::process::Command::new("mandoc")
            .args(["-T", "ascii", "-O", "width=1000"])
            .arg(pages.join(file))
            .output();
        let Ok(mandoc) = mandoc else {
            return common::skip("there is no mandoc");
        };
        let expected = words(&without_overstrikes(&mandoc.stdout));
        let (name, section) = file.rsplit_once('.').expect("a section");
        let page = page(name, Some(section)).expect("a page");
        assert_eq!(words(&page), expected, "{file}");
    }
}

/// The words between the headers; what marks the items of a list is left out, and dashes are dashes.
fn words(page: &str) -> Vec<String> {
    let lines: Vec<&str> = page.trim().lines().collect();
    let mut lines = &lines[1..];
    if lines.last().is_some_and(|line| line.contains("November")) {
        lines = &lines[..lines.len() - 1];
    }
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    words
        .filter(|word| !["*", "+", "o", "-", "--"].contains(word))
        .map(|word| word.replace('`', "'"))
        .collect()
}

/// Text without the backspaces that make it bold or underlined on a printer.
fn without_overstrikes(text: &[u8]) -> String {
    let mut plain = String::new();
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '\u{8}' => _ = plain.pop(),
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn the_pages_beside_the_program_come_first() {
    let scene = Scene::new();
    let programs = man(&scene, true);
    for directory in ["prefix/bin", "prefix/share/man/man1"] {
        fs::create_dir_all(scene.path(directory)).expect("a directory");
    }
    let program = scene.path("prefix/bin/cascade");
    fs::copy(env!("CARGO_BIN_EXE_cascade"), &program).expect("a copy of the program");
    let program = program.to_str().expect("a path in ASCII");
    let beside = fs::canonicalize(scene.path("prefix/share/man")).expect("it is there");
    for (own, expected) in [("", ""), ("/elsewhere:", "/elsewhere:")] {
        let help = scene.program(program).args(["help", "get"]);
        let help = help.env("PATH", &programs).env("MANPATH", own).run();
        let path = format!("MANPATH={}:{expected}", beside.display());
        assert_eq!(help.stdout.lines().nth(1), Some(&*path), "{help:#?}");
    }
}

#[test]
fn what_was_mistyped_is_suggested() {
    let scene = Scene::new();
    for (typed, suggestion) in [
        (["trakcer", "x"], "(did you mean tracker?)"),
        (["help", "protcol"], "(did you mean protocol?)"),
        (["get", "--no-server"], "(did you mean --no-serve?)"),
    ] {
        let mistake = scene.cascade(typed[0]).arg(typed[1]).run();
        assert_eq!(mistake.status.code(), Some(2), "{mistake:#?}");
        assert_eq!(mistake.stderr.lines().count(), 1, "{mistake:#?}");
        assert!(mistake.stderr.contains(suggestion), "{mistake:#?}");
    }
}

/// Whether the help has colours, or other attributes, on a terminal of this kind.
fn on_a_terminal(scene: &Scene, variables: &[(&str, &str)]) -> Finished {
    let command = format!("'{}' --help", env!("CARGO_BIN_EXE_cascade"));
    // What the environment of the tests says is not meant.
    let mut terminal = scene.program("env");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        terminal = terminal.arg(format!("--unset={name}"));
    }
    for (name, value) in variables {
        terminal = terminal.arg(format!("{name}={value}"));
    }
    terminal
        .args(["script", "-qec", &command, "/dev/null"])
        .run()
}

#[test]
fn there_are_colours_on_a_terminal_only_and_not_where_no_color_is_set() {
    let scene = Scene::new();
    let coloured = on_a_terminal(&scene, &[("TERM", "xterm")]);
    assert!(coloured.stdout.contains("\x1b["), "{coloured:#?}");
    for without in [
        on_a_terminal(&scene, &[("TERM", "xterm"), ("NO_COLOR", "1")]),
        on_a_terminal(&scene, &[("TERM", "xterm"), ("CLICOLOR", "0")]),
        on_a_terminal(&scene, &[("TERM", "dumb")]),
        on_a_terminal(&scene, &[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")]),
        scene.cascade("--help").env("CLICOLOR_FORCE", "1").run(),
        scene.cascade("--help").env("TERM", "xterm").run(),
    ] {
        assert!(without.stdout.contains("Usage: cascade"), "{without:#?}");
        assert!(!without.stdout.contains('\x1b'), "{without:#?}");
    }
    let mistake = scene.cascade("--nothing").env("TERM", "xterm").run();
    assert!(!mistake.stderr.contains('\x1b'), "{mistake:#?}");
}

#[test]
fn a_help_or_version_that_cannot_be_written_is_an_error() {
    let scene = Scene::new();
    for asked in ["--help", "--version", "get --help"] {
        let command = format!("exec \"$0\" {asked} > /dev/full");
        let command = scene.program("sh").args(["-c", &command]);
        let ended = command.arg(env!("CARGO_BIN_EXE_cascade")).run();
        assert!(ended.assert_code(1).error().contains("standard output"));
    }
}

#[test]
fn make_help_has_every_target() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile");
    let makefile = fs::read_to_string(path).expect("the Makefile");
    let targets = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY: "));
    for target in targets.expect("targets").split_whitespace() {
        let rule = format!("{target}:");
        let rule = makefile.lines().find(|line| line.starts_with(&rule));
        let what = rule.and_then(|rule| rule.split_once(" ## "));
        let (_, what) = what.unwrap_or_else(|| panic!("nothing is said of {target}"));
        assert!(what.len() <= 80 - 22, "too long for a terminal: {what}");
    }
}
