//! The tracker: who serves what.
