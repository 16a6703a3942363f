//! How full a tracker is, in figures.

/// What an operator wants to know first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// How many files are tracked; nothing where any may come.
    pub files: Option<u64>,
    /// How many peers are registered, over all files; some may have expired.
    pub peers: u32,
    /// How many may be.
    pub capacity: u32,
}

impl Figures {
    /// The lines of a status block.
    pub fn lines(&self) -> Vec<String> {
        let files = self
            .files
            .map_or_else(|| "any".into(), |files| files.to_string());
        let Self {
            peers, capacity, ..
        } = self;
        vec![
            format!("files: {files}"),
            format!("peers: {peers} registered, room for {capacity}"),
        ]
    }
}
