//! A status in words: the lines of a status block in the log, and the report on a terminal of 80 columns.

use std::time::{Duration, UNIX_EPOCH};

use indicatif::HumanBytes;

use super::report::{Held, Peer, Registered, Role, State, Status, Tracked, Tracker, per_cent};
use crate::layout::{bar, wrapped};
use crate::text::escape;
use crate::tracker::figures::Figures;

/// Width of a bar, in columns.
const BAR: usize = 10;
/// Width of a label, in columns.
const LABEL: usize = 13;
/// The most peers that are shown of a file.
const MOST_PEERS: usize = 20;
/// The most files that are shown.
const MOST_FILES: usize = 50;

/// The lines that the server logs on a signal: figures only.
pub fn block(status: &Status) -> Vec<String> {
    let served = !status.about.listening.is_empty();
    let of_connections = served.then(|| status.connections.tally().status());
    let mut lines = of_connections.unwrap_or_default();
    lines.extend(match &status.role {
        Role::Tracker(tracker) => figures(tracker).lines(),
        Role::Peer(peer) => peer_lines(peer),
    });
    lines
}

fn figures(tracker: &Tracker) -> Figures {
    Figures {
        files: (!tracker.open).then_some(tracker.tracked),
        peers: tracker.peers,
        capacity: tracker.capacity,
    }
}

fn peer_lines(peer: &Peer) -> Vec<String> {
    let count = |state| peer.files.iter().filter(|file| file.state == state).count();
    let sum = |figure: fn(&Held) -> u64| peer.files.iter().map(figure).sum::<u64>();
    vec![
        format!(
            "files: {}, {} complete, {} given up, {} of {} bytes verified",
            peer.files.len(),
            count(State::Complete),
            count(State::GivenUp),
            sum(|file| file.verified),
            sum(|file| file.length),
        ),
        format!("received: {} bytes", peer.received),
        format!("peers: {} downloaded from", peer.sources),
    ]
}

/// The report.
pub fn report(status: &Status) -> String {
    let mut lines = head(status);
    for line in block(status) {
        let (label, text) = line.split_once(": ").unwrap_or(("", &line));
        lines.extend(labelled(label, text));
    }
    lines.extend(labelled("rate", &rate(status)));
    match &status.role {
        Role::Tracker(tracker) => lines.extend(tracked(tracker, status.now)),
        Role::Peer(peer) => lines.extend(held(peer)),
    }
    lines.join("\n") + "\n"
}

fn labelled(label: &str, text: &str) -> Vec<String> {
    wrapped(&format!("{label:<LABEL$}{text}"), LABEL)
}

fn head(status: &Status) -> Vec<String> {
    let (about, what) = (&status.about, role_name(status));
    let since = UNIX_EPOCH + Duration::from_secs(about.started);
    let up = status.now.saturating_sub(about.started);
    let mut lines = labelled(
        what,
        &format!(
            "pid {}, cascade {}, up {} since {}",
            about.pid,
            escape(about.version.as_bytes()),
            coarse(up),
            humantime::format_rfc3339_seconds(since),
        ),
    );
    let addresses: Vec<String> = about.listening.iter().map(ToString::to_string).collect();
    if !addresses.is_empty() {
        lines.extend(labelled("listening", &addresses.join(", ")));
    }
    lines
}

/// What it is.
pub fn role_name(status: &Status) -> &'static str {
    match status.role {
        Role::Tracker(_) => "tracker",
        Role::Peer(_) => "peer",
    }
}

fn rate(status: &Status) -> String {
    let sent = per_second(status.connections.sent_per_second);
    match &status.role {
        Role::Tracker(_) => format!("{sent} sent"),
        Role::Peer(peer) => {
            let received = per_second(peer.received_per_second);
            format!("{sent} sent, {received} received")
        }
    }
}

fn tracked(tracker: &Tracker, now: u64) -> Vec<String> {
    let mut lines = Vec::new();
    for file in tracker.files.iter().take(MOST_FILES) {
        lines.push(String::new());
        let hash = escape(file.hash.as_bytes());
        match &file.name {
            Some(name) => lines.extend([escape(name.as_bytes()), format!("  {hash}")]),
            None => lines.push(hash),
        }
        lines.extend(wrapped(&format!("  {}", in_words(file)), 2));
        let shown = file.registered.iter().take(MOST_PEERS);
        lines.extend(shown.map(|peer| registered(file, peer, now)));
        let left = u64::from(file.peers).saturating_sub(MOST_PEERS as u64);
        if left > 0 {
            lines.push(format!("  … and {left} more"));
        }
    }
    let shown = tracker.files.len().min(MOST_FILES) as u64;
    lines.extend(and_more(tracker.tracked.saturating_sub(shown)));
    lines
}

fn and_more(files: u64) -> Vec<String> {
    match files {
        0 => Vec::new(),
        files => vec![
            String::new(),
            format!("… and {} more", plural(files, "file")),
        ],
    }
}

/// Who has a file, in words.
pub fn in_words(file: &Tracked) -> String {
    let mut text = plural(file.peers.into(), "peer");
    if file.good > 0 {
        text += &format!(", {} good", file.good);
    }
    match (file.complete, file.blocks) {
        (0, Some(blocks)) => text += &format!("; {}", plural(blocks.into(), "block")),
        (0, None) => {}
        (complete, Some(blocks)) => {
            text += &format!(
                "; {complete} known to have all {}",
                plural(blocks.into(), "block")
            );
        }
        (complete, None) => text += &format!("; {complete} known to have all of it"),
    }
    text
}

/// How much of a file a peer has: a fraction, if known, and words.
pub fn share(file: &Tracked, peer: &Registered) -> (Option<f64>, String) {
    match (peer.complete, peer.present, file.blocks) {
        (Some(true), _, _) => (Some(1.0), "100 %".into()),
        (_, Some(present), Some(blocks)) if blocks > 0 => {
            let share = f64::from(present.min(blocks)) / f64::from(blocks);
            let per_cent = per_cent(present.min(blocks).into(), blocks.into());
            (Some(share), format!("{per_cent} %"))
        }
        (_, Some(present), _) => (None, plural(present.into(), "block")),
        (_, None, _) => (None, "not known".into()),
    }
}

fn registered(file: &Tracked, peer: &Registered, now: u64) -> String {
    let (share, text) = share(file, peer);
    let how_much = match share {
        Some(share) => format!("{} {text:>5}", bar(share, BAR)),
        None => format!("{text:<width$}", width = BAR + 6),
    };
    let seen = coarse(now.saturating_sub(peer.last_seen.into()));
    let good = if peer.good { ", good" } else { "" };
    // 255.255.255.255:65535
    format!(
        "  {:<21}  {how_much}  seen {seen} ago{good}",
        peer.address.to_string()
    )
}

fn held(peer: &Peer) -> Vec<String> {
    let mut lines = Vec::new();
    for file in peer.files.iter().take(MOST_FILES) {
        lines.extend([
            String::new(),
            escape(file.file.as_bytes()),
            format!("  {}", escape(file.hash.as_bytes())),
        ]);
        lines.extend(wrapped(&format!("  {}", how_far(file)), LABEL + 2));
    }
    let shown = peer.files.len().min(MOST_FILES);
    lines.extend(and_more((peer.files.len() - shown) as u64));
    lines
}

fn how_far(file: &Held) -> String {
    if file.state == State::Fetching {
        let what = "the cascade file is being searched for";
        return format!("{:<LABEL$}{what}", file.state.describe());
    }
    let (present, blocks) = (u64::from(file.present), u64::from(file.blocks));
    let share = if blocks == 0 {
        1.0
    } else {
        present as f64 / blocks as f64
    };
    let mut text = format!(
        "{:<LABEL$}{} {:>3} %  {present} of {}",
        file.state.describe(),
        bar(share, BAR),
        per_cent(present, blocks),
        plural(blocks, "block"),
    );
    if file.state == State::Downloading {
        let sources = plural(file.sources, "peer");
        text += &format!(", {sources}, {}", per_second(file.received_per_second));
        let missing = file.length.saturating_sub(file.verified);
        if file.received_per_second >= 1.0 {
            let left = (missing as f64 / file.received_per_second).ceil() as u64;
            text += &format!(", {} left", coarse(left));
        }
    }
    text
}

fn per_second(rate: f64) -> String {
    format!("{}/s", HumanBytes(rate as u64))
}

/// A duration in words: its two largest units.
pub fn coarse(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A number of things.
pub fn plural(count: u64, thing: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::COLUMNS;
    use crate::status::tests::{peer, tracker};

    #[test]
    fn the_block_is_what_the_log_would_say() {
        assert_eq!(
            block(&tracker()),
            [
                "connections: 2 now, 1033 ever: done 1019, refused 2, timed out 3, protocol error 1, disconnected 4, crashed 2; 5 turned away",
                "bytes: 123456 sent",
                "files: 2",
                "peers: 3 registered, room for 65536",
            ]
        );
        assert_eq!(
            block(&peer())[2..],
            [
                "files: 7, 1 complete, 1 given up, 2750000 of 6000000 bytes verified",
                "received: 1750000 bytes",
                "peers: 3 downloaded from",
            ]
        );
    }

    #[test]
    fn the_report_fits_a_terminal_and_does_nothing_to_it() {
        for status in [tracker(), peer()] {
            let report = report(&status);
            for line in report.lines() {
                assert!(line.chars().count() <= COLUMNS, "{line}");
                assert!(
                    !line.contains('\u{1b}') && line.trim_end() == line,
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn of_each_peer_it_is_said_how_much_it_has_where_that_is_known() {
        let report = report(&tracker());
        for part in [
            "3 peers, 1 good; 1 known to have all 80 blocks",
            "192.0.2.7:9000         ██████████ 100 %  seen 12s ago, good",
            "192.0.2.8:51234        ███▌        35 %  seen 12s ago",
            "255.255.255.254:65535  not known         seen 12s ago",
            "0 peers",
        ] {
            assert!(report.contains(part), "{part}\n{report}");
        }
    }

    #[test]
    fn of_each_file_it_is_said_how_far_it_is() {
        let report = report(&peer());
        for part in [
            "complete     ██████████ 100 %  100 of 100 blocks",
            "downloading  ███▌        35 %  35 of 100 blocks, 3 peers",
            "verifying    ███▌        35 %  35 of 100 blocks",
            "fetching     the cascade file is being searched for",
        ] {
            assert!(report.contains(part), "{part}\n{report}");
        }
    }

    #[test]
    fn a_download_says_how_long_it_will_take() {
        let report = report(&peer());
        let words: Vec<&str> = report.split_whitespace().collect();
        assert!(words.join(" ").contains("KiB/s, 1m 5s left"), "{report}");
    }
}
