//! A browser without a window, for the pages that the program makes.

use std::path::Path;
use std::time::Duration;

use super::scene::Scene;

/// The browser, where there is one.
pub fn chromium() -> Option<&'static str> {
    ["/usr/bin/chromium", "/usr/bin/chromium-browser"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}

/// The page as the browser has it in the end, and what the browser logged.
pub fn load(scene: &Scene, chromium: &str, url: &str) -> (String, String) {
    let profile = tempfile::tempdir().expect("a fresh profile");
    let run = scene
        .program(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .args([
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .start()
        .finish_within(Duration::from_secs(60))
        .assert_code(0);
    (run.stdout, run.stderr)
}
