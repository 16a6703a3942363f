//! The tracker protocol's server.
