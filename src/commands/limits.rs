//! What the options of a server say that it grants its clients.

use crate::cli::LimitOptions;
use crate::server::Limits;

/// These limits, but for what the options say.
pub fn limits(usual: Limits, options: &LimitOptions) -> Limits {
    let number = |given: Option<u32>, usual: usize| given.map_or(usual, |given| given as usize);
    Limits {
        max_connections: number(options.max_connections, usual.max_connections),
        max_per_address: options.max_per_address.unwrap_or(usual.max_per_address),
        idle_timeout: options.idle_timeout.unwrap_or(usual.idle_timeout),
        request_timeout: options.request_timeout.unwrap_or(usual.request_timeout),
        send_timeout: options.send_timeout.unwrap_or(usual.send_timeout),
        max_lifetime: options.max_lifetime.unwrap_or(usual.max_lifetime),
        grace: options.grace.unwrap_or(usual.grace),
        backlog: options.backlog.unwrap_or(usual.backlog),
        ..usual
    }
}

/// These limits, but for what the options say, and with a pool of this size.
pub fn limits_with_pool(usual: Limits, options: &LimitOptions, pool: usize) -> Limits {
    Limits {
        pool,
        ..limits(usual, options)
    }
}
