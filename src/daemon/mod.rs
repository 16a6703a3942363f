//! Manners of a process that runs until a signal: how it gets on with what started it.
//!
//! | module | what it is |
//! |---|---|
//! | [`pidfile`] | the file that names the process, and that only one process can have |

pub mod pidfile;
