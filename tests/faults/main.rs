//! The twenty faults that a server must survive, and those of downloads.
//!
//! After each, [`trial::Trial::survived`] checks that the listener is the process that it was, no zombie is left, its
//! descriptors are back to what they were, a fresh client is served within a second, and the counters balance.
//!
//! | fault | here | elsewhere |
//! |---|---|---|
//! | 1 KILL a serving child | `crashes::a_child_that_is_killed_…` | `models::a_member_of_the_pool_that_dies_is_replaced` |
//! | 2 SEGV, ABRT in a child | `crashes::on_demand::a_child_of_which_the_program_is_wrong_…` | `compare` shows it of each model |
//! | 3 panic in a child | `crashes::on_demand::a_panic_…` | |
//! | 4 200 children exit at once | `crashes::two_hundred_children_…` | |
//! | 5 exit before it is recorded | `crashes::on_demand::a_child_that_ends_before_…` | |
//! | 6 fork fails | `resources::without_a_free_process_…` | |
//! | 7 no descriptor | `resources::without_a_free_descriptor_…` | |
//! | 8 10,000 connections | `resources::ten_thousand_connections_…` | |
//! | 9 reset before accept | `clients::clients_that_reset_…` | `models`: `resets` |
//! | 10 a silent client | `deadlines::a_silent_client_…` | `server_limits`, every model |
//! | 11 a byte at a time | `deadlines::a_request_of_a_byte_at_a_time_…` | `server_limits`, every model |
//! | 12 a reader that does not read | `deadlines::a_client_that_reads_nothing_…` | `server_limits`, every model |
//! | 13 a network that is gone | `networks::a_client_whose_network_is_gone_…` | |
//! | 14 half-close | `clients::clients_that_half_close_…` | `models`: `half_close`; `standin_clients` |
//! | 15 disconnect in mid-block | `clients::clients_that_break_off_…` | `standin_clients` |
//! | 16 a flood from one address | | `server_limits::one_address_has_so_many_connections`, every model |
//! | 17 malformed requests | `clients::what_is_no_request_…` | `tracker`, `standin_clients`: what each is answered |
//! | 18 TERM in mid-transfer | `signals::what_is_under_way_…`, `signals::on_demand` | `lifecycle`: deadline, second signal, every model; `models`: `a_term_while_busy` |
//! | 19 KILL the parent | `crashes::all_end_with_the_parent_…` | `models::the_pool_dies_with_its_parent`, `resume` |
//! | 20 HUP, broken, under load | `signals::a_broken_…` | `lifecycle`: `a_broken_…` |
//!
//! | download | here | elsewhere |
//! |---|---|---|
//! | a worker killed in mid-block | `downloads::a_worker_that_is_killed_…` | `resume`: the whole download killed |
//! | a pipe that ends without a report | `downloads::on_demand` | |
//! | wrong bytes | | `dishonest_peers` |
//! | a full disk | `downloads::on_demand::a_disk_that_is_full_…` | `bad_input::a_full_disk_is_seen_…`, `regressions::a_file_size_limit_…` |
//! | a read-only directory | `downloads::a_read_only_directory_…` | `bad_input::a_data_file_that_may_not_be_written_…` |
//! | a data file cut while it is served | | `standin_clients::a_data_file_that_was_cut_…`, `departure` |
//! | a data file replaced | `downloads::a_data_file_that_is_replaced_…` | `regressions::a_part_file_that_was_replaced_…` |
//! | a peer that stops, a wrong length, an unknown status, 2⁶⁴−1 | | `dishonest_peers` |
//! | a tracker that hangs or lies | | `standin_trackers` |
//! | a tracker that dies | `downloads::a_tracker_that_dies_…` | `standin_trackers::a_tracker_that_cannot_be_reached_…` |
//! | two processes on one file | | `resume::a_second_process_on_…` |
//!
//! What goes wrong on demand needs the feature `faults` (`make check` has it); what needs root says that it was skipped.
//! All of it at once, at random, is `make soak`.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod crashes;
mod deadlines;
mod downloads;
mod networks;
mod resources;
mod signals;
mod trial;
