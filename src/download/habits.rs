//! What a worker learns of how its peer treats connections, so that no block is lost and no close counts as a failure.
//!
//! Some peers close after every response, some after a few, some never (PROTOCOL §4). Where requests wait unread at a
//! server that closes, the reset destroys the response on its way: so a request is sent ahead only after two
//! responses on the same connection, and never beyond the number that the peer was seen to answer on one.

/// The most requests outstanding with a peer that has not shown the extension (PROTOCOL §4).
pub const AHEAD_PLAIN: u32 = 16;
/// The same for a peer that has: one of our kind.
pub const AHEAD_EXTENDED: u32 = 256;
/// A peer that ends a connection so often without a single answer is of no use.
const EMPTY_CONNECTIONS: u32 = 3;

/// What is known of a peer's habits.
#[derive(Debug, Default)]
pub struct Habits {
    /// How many responses the peer gave on a connection before it closed it under a request.
    per_connection: Option<u32>,
    /// Whether requests that were sent ahead have come to harm.
    never_ahead: bool,
    /// Whether the peer knows the extension; nothing while nobody asked.
    extended: Option<bool>,
    /// Connections in a row that ended before an answer.
    empty: u32,
}

impl Habits {
    /// How many requests may be outstanding on a connection that has carried so many requests and responses.
    pub fn window(&self, requests: u32, responses: u32) -> u32 {
        let ahead = match self.extended {
            Some(true) => AHEAD_EXTENDED,
            _ => AHEAD_PLAIN,
        };
        let window = if self.never_ahead || responses < 2 {
            1
        } else {
            ahead
        };
        let outstanding = requests - responses;
        let left = self
            .per_connection
            .map_or(u32::MAX, |most| most.saturating_sub(requests));
        window.min(outstanding.saturating_add(left))
    }

    /// Whether this connection will carry no further request, so that it is not worth keeping.
    pub fn is_used_up(&self, requests: u32) -> bool {
        self.per_connection.is_some_and(|most| requests >= most)
    }

    /// Whether the extension may be tried with this peer.
    pub fn may_extend(&self) -> bool {
        self.extended != Some(false)
    }

    /// Whether the peer has shown the extension.
    pub fn is_extended(&self) -> bool {
        self.extended == Some(true)
    }

    /// The peer has shown the extension, or its lack.
    pub fn set_extended(&mut self, extended: bool) {
        self.extended = Some(extended);
    }

    /// The peer answered.
    pub fn answered(&mut self) {
        self.empty = 0;
    }

    /// The peer ended a connection after so many responses, while so many requests were outstanding. Answers whether
    /// it is worth another connection.
    pub fn closed(&mut self, responses: u32, outstanding: u32) -> bool {
        if outstanding > 1 {
            self.never_ahead = true;
        }
        if responses > 0 {
            if outstanding > 0 {
                self.per_connection = Some(
                    self.per_connection
                        .map_or(responses, |known| known.min(responses)),
                );
            }
            self.empty = 0;
            return true;
        }
        self.empty += 1;
        self.empty < EMPTY_CONNECTIONS
    }

    /// A request came to harm that was sent ahead, or after others: from now on one at a time.
    pub fn one_at_a_time(&mut self) {
        self.never_ahead = true;
    }

    /// Whether requests are sent one at a time already.
    pub fn is_one_at_a_time(&self) -> bool {
        self.never_ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_ahead_before_two_responses() {
        let mut habits = Habits::default();
        assert_eq!(habits.window(0, 0), 1);
        assert_eq!(habits.window(1, 1), 1);
        assert_eq!(habits.window(2, 2), AHEAD_PLAIN);
        habits.set_extended(true);
        assert_eq!(habits.window(2, 2), AHEAD_EXTENDED);
    }

    #[test]
    fn a_peer_that_closes_after_each_response_gets_one_request_per_connection() {
        let mut habits = Habits::default();
        assert!(habits.closed(1, 1));
        assert_eq!(habits.window(0, 0), 1);
        assert!(habits.is_used_up(1));
        assert_eq!(habits.window(1, 1), 0);
    }

    #[test]
    fn an_idle_connection_that_is_closed_teaches_nothing() {
        let mut habits = Habits::default();
        assert!(habits.closed(5, 0));
        assert_eq!(habits.window(2, 2), AHEAD_PLAIN);
    }

    #[test]
    fn a_peer_that_never_answers_is_given_up() {
        let mut habits = Habits::default();
        assert!(habits.closed(0, 1));
        assert!(habits.closed(0, 1));
        assert!(!habits.closed(0, 1));
    }
}
