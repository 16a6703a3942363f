//! A server's status: requested through its control socket, and of a tracker over HTTP.
//!
//! | module | what it is |
//! |---|---|
//! | [`report`] | what is told: one object, which is documented and stays |
//! | [`words`] | the same for people, on a terminal and in the log |
//! | [`metrics`], [`page`] | the same for Prometheus, and for a browser |
//! | [`hosts`] | for which hosts there is an answer; pure |
//! | [`http`] | requests and responses; pure |
//! | [`service`] | a session for each request, as any server of this program has them |
//! | [`rates`] | bytes per second, of counters |
//! | [`doors`] | the processes that answer, one for the control socket and one for HTTP |
//! | [`tracker`], [`reporter`] | what a tracker tells, and the process that starts those who tell it |
//! | [`survey`], [`answers`] | asking a tracker's peers how much they have, and what they said |
//! | [`process`] | one that is started again when it dies |
//! | [`client`] | asking |
//!
//! ```text
//! tracker      serves its clients, and does nothing of this
//! └─ keeper    starts the reporter again when it dies                      confine::keeper
//!    └─ reporter    maps the tables of the tracker, starts what follows    reporter
//!       ├─ door      the control socket: a child for each request          doors
//!       ├─ door      HTTP: a child for each request
//!       └─ surveyor  a child for each question to a peer → answers         survey
//! ```
//!
//! A peer's supervisor starts its door itself. The status is read from memory that all processes of a server share, and
//! those that report it have it mapped read-only: neither HTTP requests by strangers nor an excess of requests affects
//! the clients being served.

pub mod answers;
pub mod client;
pub mod doors;
pub mod hosts;
pub mod http;
pub mod metrics;
pub mod page;
pub mod process;
pub mod rates;
pub mod report;
pub mod reporter;
pub mod service;
pub mod survey;
pub mod tracker;
pub mod words;

#[cfg(test)]
mod tests {
    use super::report::{
        About, Connections, Ended, FORMAT, Held, Peer, Registered, Role, State, Status, Tracked,
        Tracker,
    };

    fn status(role: Role) -> Status {
        Status {
            format: FORMAT,
            about: About {
                version: "0.1.0".into(),
                pid: 4711,
                started: 1_795_440_000,
                listening: vec!["192.0.2.1:8888".parse().expect("an address")],
            },
            now: 1_795_446_245,
            connections: Connections {
                now: 2,
                accepted: 1033,
                turned_away: 5,
                ended: Ended {
                    done: 1019,
                    refused: 2,
                    timed_out: 3,
                    protocol_error: 1,
                    disconnected: 4,
                    crashed: 2,
                },
                sent: 123_456,
                sent_per_second: 2048.0,
            },
            role,
        }
    }

    fn registered(address: &str, present: Option<u32>, complete: Option<bool>) -> Registered {
        Registered {
            address: address.parse().expect("an address"),
            good: complete == Some(true),
            last_seen: 1_795_446_233,
            present,
            complete,
        }
    }

    /// A tracker of two files, of which it knows one better.
    pub(super) fn tracker() -> Status {
        let registered = vec![
            registered("192.0.2.7:9000", Some(80), Some(true)),
            registered("192.0.2.8:51234", Some(28), Some(false)),
            registered("255.255.255.254:65535", None, None),
        ];
        let known = Tracked {
            hash: "ab".repeat(32),
            name: Some("disk \u{1b}\"\\<b>.img".into()),
            blocks: Some(80),
            peers: 3,
            good: 1,
            complete: 1,
            registered,
        };
        let unknown = Tracked {
            hash: "cd".repeat(32),
            name: None,
            blocks: None,
            peers: 0,
            good: 0,
            complete: 0,
            registered: Vec::new(),
        };
        status(Role::Tracker(Tracker {
            open: false,
            ttl: 1800,
            peers: 3,
            capacity: 65_536,
            tracked: 2,
            files: vec![known, unknown],
        }))
    }

    /// A peer with one file of each state.
    pub(super) fn peer() -> Status {
        let held = |state| Held {
            file: format!("/srv/{state:?}\u{1b}\"\\<b>.img"),
            hash: "ab".repeat(32),
            length: 1_000_000,
            block_size: 10_000,
            blocks: 100,
            present: if state == State::Complete { 100 } else { 35 },
            verified: if state == State::Complete {
                1_000_000
            } else {
                350_000
            },
            state,
            sources: if state == State::Downloading { 3 } else { 0 },
            received: 350_000,
            received_per_second: if state == State::Downloading {
                10_000.0
            } else {
                0.0
            },
        };
        status(Role::Peer(Peer {
            received: 1_750_000,
            received_per_second: 10_000.0,
            sources: 3,
            files: State::ALL.map(held).map(known_as_far_as_it_is).into(),
        }))
    }

    /// Of a file whose cascade file is being searched for only its hash is known.
    fn known_as_far_as_it_is(file: Held) -> Held {
        match file.state {
            State::Fetching => Held {
                length: 0,
                block_size: 0,
                blocks: 0,
                present: 0,
                verified: 0,
                received: 0,
                ..file
            },
            _ => file,
        }
    }
}
