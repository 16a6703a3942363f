//! Plans against each other.
