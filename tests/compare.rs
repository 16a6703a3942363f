//! `cascade compare`, in runs that are short: what it says, what it writes, and that nothing of it is left.

mod common;

use std::fs;
use std::time::Duration;

use common::browser::{chromium, load};
use common::scene::Scene;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A run that takes a moment: the rest of the command line.
const SHORT: [&str; 8] = [
    "--models",
    "process,event",
    "--clients",
    "1,4",
    "--duration",
    "0.3",
    "--rounds",
    "1",
];

/// A short run with both files; its output and the figures.
fn short_run(scene: &Scene) -> (String, Value) {
    let run = scene
        .cascade("compare")
        .args(SHORT)
        .args(["--json", "figures.json", "--html", "page.html"])
        .run()
        .assert_code(0);
    let json = fs::read(scene.path("figures.json")).expect("the figures were written");
    let figures = serde_json::from_slice(&json).expect("they are JSON");
    (run.stdout, figures)
}

#[test]
fn the_report_fits_a_terminal_and_the_files_have_every_figure() {
    let scene = Scene::new();
    let (report, figures) = short_run(&scene);
    for line in report.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!report.contains('\x1b'), "no colours without a terminal");
    for part in [
        "Machine   ",
        "1 client, a connection per request",
        "4 clients, persistent connections",
        "4 idle connections beside 4 clients",
        "generator █",
        "The sandbox, under process, 4 clients",
        "connections with the sandbox to those without: ",
        "process, 32 MiB private",
        "15 of 15 survive, new clients are served",
        "loses all: 0 of 15 survive, nobody new is served",
        "A process per connection has the overhead",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
    check_figures(&figures);
    scene.assert_nothing_left();
}

/// The keys of the manual, and figures that can be.
fn check_figures(figures: &Value) {
    for key in [
        "format",
        "program",
        "began",
        "took",
        "machine",
        "service",
        "models",
        "clients",
        "noise",
        "duration",
        "rounds",
        "cells",
        "costs",
        "sharing",
        "isolation",
        "registry",
        "sandbox",
        "claims",
    ] {
        assert!(!figures[key].is_null(), "{key}");
    }
    let cells = figures["cells"].as_array().expect("cells");
    // Two numbers of clients, two ways, three subjects; the idle connections of two models.
    assert_eq!(cells.len(), 2 * 2 * 3 + 2);
    for cell in cells {
        assert_eq!(
            (&cell["starved"], &cell["errors"]),
            (&0.into(), &0.into()),
            "{cell}"
        );
        let rate = &cell["requests_per_second"];
        assert!(rate["min"].as_f64() > Some(10.0), "{cell}");
        let latency = &cell["latency_us"];
        assert!(latency["p50"].as_f64() > Some(1.0), "{cell}");
        assert!(
            latency["p50"].as_f64() <= latency["p999"].as_f64(),
            "{cell}"
        );
        if cell["model"] != "generator" {
            assert!(cell["cpu_us_per_request"].as_f64() > Some(0.5), "{cell}");
            assert!(
                cell["memory_kib"]["median"].as_f64() > Some(100.0),
                "{cell}"
            );
        }
    }
    let idle = |model: &str| {
        let of_model = |cell: &&Value| cell["model"] == model && cell["mode"] == "idle";
        let cell = cells.iter().find(of_model).expect("an idle cell");
        cell["idle_memory"]["per_connection_kib"].as_f64()
    };
    assert!(idle("process") > idle("event"), "a process needs memory");
    let costs = figures["costs"].as_array().expect("costs");
    assert_eq!(costs.len(), 4);
    assert!(
        costs
            .iter()
            .all(|cost| cost["microseconds"]["median"].as_f64() > Some(1.0))
    );
    assert_eq!(figures["sharing"]["seen_private"], 0);
    assert_eq!(
        figures["sharing"]["seen_shared"],
        figures["sharing"]["updates"]
    );
    assert_eq!(figures["isolation"][0]["survivors"], 15);
    assert_eq!(figures["isolation"][1]["survivors"], 0);
    assert_eq!(figures["claims"].as_array().map(Vec::len), Some(7));
}

#[test]
fn who_cannot_serve_all_clients_has_no_average() {
    let scene = Scene::new();
    let run = scene
        .cascade("compare")
        .args(["--models", "iterative", "--clients", "3"])
        .args(["--duration", "0.2", "--rounds", "1"])
        .run()
        .assert_code(0);
    assert!(
        run.stdout.contains("iterative starved: 2 clients\n"),
        "{}",
        run.stdout
    );
    scene.assert_nothing_left();
}

#[test]
fn peers_and_trackers_are_compared_as_well_and_leave_no_file() {
    for service in ["block", "tracker"] {
        let scene = Scene::new();
        let temporary = scene.directory("temporary");
        let run = scene
            .cascade("compare")
            .args(SHORT)
            .args(["--service", service])
            .env("TMPDIR", &temporary)
            .run()
            .assert_code(0);
        let persistent = run.stdout.contains("4 clients, persistent connections");
        assert_eq!(
            persistent,
            service == "block",
            "a tracker closes after a response"
        );
        assert!(!run.stdout.contains("starved"), "{}", run.stdout);
        let registry = run.stdout.contains("peers of 1,000 files, 4 clients");
        assert_eq!(registry, service == "tracker", "{}", run.stdout);
        assert_eq!(run.stderr, "", "servers keep to themselves");
        let left = fs::read_dir(temporary).expect("readable").count();
        assert_eq!(left, 0, "{service}");
    }
}

#[test]
fn a_comparison_that_is_stopped_or_killed_leaves_no_process() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let scene = Scene::new();
        let compare = scene
            .cascade("compare")
            .args(["--models", "prefork,thread", "--duration", "60"])
            .start();
        common::eventually("server and generator are there", || scene.left().len() > 3);
        compare.signal(signal);
        compare
            .finish_within(Duration::from_secs(10))
            .assert_signal(signal);
        scene.assert_nothing_left();
    }
}

#[test]
fn a_part_is_of_no_use_without_its_comparison() {
    let scene = Scene::new();
    let run = scene
        .cascade("compare-part")
        .args(["1", "load"])
        .run()
        .assert_code(1);
    assert!(run.error().contains("cannot be a part of a comparison"));
}

#[test]
fn the_page_shows_its_plots_in_a_browser_without_an_error() {
    let Some(chromium) = chromium() else {
        eprintln!("skipped: there is no Chromium here");
        return;
    };
    let scene = Scene::new();
    short_run(&scene);
    let file = |name: &str| format!("file://{}", scene.path(name).display());
    let (dom, log) = load(&scene, chromium, &file("page.html"));
    assert!(dom.contains("</html>"), "{dom}\n{log}");
    for plot in [
        "plot-connections",
        "plot-requests",
        "plot-latency-connection",
        "plot-latency-request",
        "plot-memory",
        "plot-creation",
    ] {
        assert!(dom.contains(&format!("id=\"{plot}\"")), "{plot}\n{dom}");
    }
    assert!(!log.contains("CONSOLE"), "{log}");

    // That no error is seen means something only where one would be.
    let page = fs::read_to_string(scene.path("page.html")).expect("the page");
    let broken = page.replace("</body>", "<script>undefinedFunction()</script></body>");
    fs::write(scene.path("broken.html"), broken).expect("written");
    let (_, log) = load(&scene, chromium, &file("broken.html"));
    assert!(log.contains("CONSOLE"), "{log}");
}
