//! A status in the text format of Prometheus, version 0.0.4.

use std::fmt::Write;

use super::report::{Peer, Role, State, Status, Tracked, Tracker};
use super::words::role_name;

/// The metrics, as they are written.
struct Metrics(String);

/// The labels of a sample.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// All metrics of a server.
pub fn render(status: &Status) -> String {
    let mut metrics = Metrics(String::new());
    metrics.about(status);
    metrics.connections(status);
    match &status.role {
        Role::Tracker(tracker) => metrics.tracker(tracker),
        Role::Peer(peer) => metrics.peer(peer),
    }
    metrics.0
}

impl Metrics {
    fn about(&mut self, status: &Status) {
        let (version, role) = (&*status.about.version, role_name(status));
        self.gauge("build_info", "Which program this is.");
        self.sample("build_info", &[("role", role), ("version", version)], 1);
        self.gauge(
            "start_time_seconds",
            "When the program began, in seconds since the Unix epoch.",
        );
        self.sample("start_time_seconds", &[], status.about.started);
    }

    fn connections(&mut self, status: &Status) {
        let connections = &status.connections;
        self.gauge("connections", "Connections that are being served.");
        self.sample("connections", &[], connections.now);
        self.counter(
            "connections_accepted_total",
            "Connections that were let in.",
        );
        self.sample("connections_accepted_total", &[], connections.accepted);
        self.counter(
            "connections_turned_away_total",
            "Connections that were not let in.",
        );
        self.sample(
            "connections_turned_away_total",
            &[],
            connections.turned_away,
        );
        self.counter(
            "connections_ended_total",
            "Connections that ended, by how they did.",
        );
        for (_, outcome, count) in connections.ended.each() {
            self.sample("connections_ended_total", &[("outcome", outcome)], count);
        }
        self.counter("sent_bytes_total", "Bytes that were sent.");
        self.sample("sent_bytes_total", &[], connections.sent);
    }

    fn tracker(&mut self, tracker: &Tracker) {
        self.gauge(
            "tracker_peers",
            "Peers that are registered, over all files.",
        );
        self.sample("tracker_peers", &[], tracker.peers.into());
        self.gauge("tracker_peers_limit", "Peers that may be registered.");
        self.sample("tracker_peers_limit", &[], tracker.capacity.into());
        self.gauge("tracker_files", "Files that are tracked.");
        self.sample("tracker_files", &[], tracker.tracked);
        let files = &tracker.files;
        self.gauge(
            "tracker_file_peers",
            "Peers of a file, by whether the operator vouches for them.",
        );
        for file in files {
            let of_file = labels_of(file);
            let (good, others) = (file.good, file.peers.saturating_sub(file.good));
            for (vouched, count) in [("true", good), ("false", others)] {
                let labels = [&of_file[..], &[("good", vouched)]].concat();
                self.sample("tracker_file_peers", &labels, count.into());
            }
        }
        self.gauge(
            "tracker_file_complete_peers",
            "Peers that are known to have all of a file.",
        );
        for file in files {
            self.sample(
                "tracker_file_complete_peers",
                &labels_of(file),
                file.complete.into(),
            );
        }
    }

    fn peer(&mut self, peer: &Peer) {
        self.counter(
            "received_bytes_total",
            "Bytes of blocks that were received.",
        );
        self.sample("received_bytes_total", &[], peer.received);
        self.gauge("peer_sources", "Peers that are downloaded from.");
        self.sample("peer_sources", &[], peer.sources);
        self.gauge("peer_files", "Files, by how far they are.");
        for state in State::ALL {
            let name = state.describe().replace(' ', "_");
            let count = peer.files.iter().filter(|file| file.state == state).count();
            self.sample("peer_files", &[("state", &name)], count as u64);
        }
        self.gauge("peer_file_bytes", "The length of a file.");
        for file in &peer.files {
            let labels = [("file", &*file.file), ("hash", &*file.hash)];
            self.sample("peer_file_bytes", &labels, file.length);
        }
        self.gauge(
            "peer_file_verified_bytes",
            "Bytes of a file that are there and right.",
        );
        for file in &peer.files {
            let labels = [("file", &*file.file), ("hash", &*file.hash)];
            self.sample("peer_file_verified_bytes", &labels, file.verified);
        }
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(name, "counter", help);
    }

    /// Writing to a text cannot fail.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP cascade_{name} {help}");
        let _ = writeln!(self.0, "# TYPE cascade_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: u64) {
        let _ = write!(self.0, "cascade_{name}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escape(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

/// A file: its name, where it is known, and its hash.
fn labels_of(file: &Tracked) -> Vec<(&'static str, &str)> {
    let name = file.name.as_deref().map(|name| ("name", name));
    name.into_iter().chain([("hash", &*file.hash)]).collect()
}

/// Text as it stands in a label.
fn escape(text: &str) -> String {
    text.replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::{peer, tracker};
    use std::collections::HashSet;

    /// What promtool would say against it, as far as that can be said without promtool.
    fn check(text: &str) {
        let mut families: HashSet<&str> = HashSet::new();
        let mut series = HashSet::new();
        let mut helped = "";
        let mut current = ("", "");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                assert!(!help.is_empty() && families.insert(name), "{line}");
                helped = name;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split_once(' ').expect("a name and a type");
                assert_eq!(current.0, helped, "{line}");
                let is_counter = current.1 == "counter";
                assert_eq!(current.0.ends_with("_total"), is_counter, "{line}");
            } else {
                let (what, value) = line.rsplit_once(' ').expect("a sample");
                let name = what.split('{').next().expect("a name");
                assert_eq!(name, current.0, "{line}");
                assert!(series.insert(what), "twice: {line}");
                value.parse::<f64>().expect("a number");
            }
        }
        assert!(families.iter().all(|name| name.starts_with("cascade_")));
    }

    #[test]
    fn each_family_has_help_type_and_samples_of_its_own() {
        check(&render(&tracker()));
        check(&render(&peer()));
    }

    #[test]
    fn the_figures_are_those_of_the_status() {
        let text = render(&tracker());
        for line in [
            "cascade_connections 2",
            "cascade_connections_ended_total{outcome=\"protocol_error\"} 1",
            &format!(
                "cascade_tracker_file_peers{{name=\"disk \u{1b}\\\"\\\\<b>.img\",hash=\"{}\",good=\"true\"}} 1",
                "ab".repeat(32)
            ),
            &format!(
                "cascade_tracker_file_complete_peers{{hash=\"{}\"}} 0",
                "cd".repeat(32)
            ),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_is_in_a_label_cannot_end_it() {
        assert_eq!(escape("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
        let text = render(&peer());
        assert!(text.contains(r#"\"\\<b>.img""#), "{text}");
    }
}
