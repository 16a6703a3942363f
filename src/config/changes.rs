//! What of a configuration that is read again takes a restart.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::options::FileOption;

/// What a file says that is in force: the values by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said(BTreeMap<String, Vec<OsString>>);

impl Said {
    /// These options.
    pub fn by(options: Vec<FileOption>) -> Self {
        let words = |option: FileOption| {
            let words = option.typed.into_iter().map(|(word, _)| word);
            (option.name, words.collect())
        };
        Self(options.into_iter().map(words).collect())
    }

    /// One more.
    pub fn add(&mut self, name: &str, value: String) {
        self.0.insert(name.into(), vec![value.into()]);
    }

    /// The names of what is said otherwise `now`, but for those that are followed at once.
    pub fn changed<'a>(&'a self, now: &'a Self, at_once: &[&str]) -> Vec<&'a str> {
        // What is said to be nothing is not said.
        let words = |said: &'a Self, name: &str| said.0.get(name).filter(|words| !words.is_empty());
        let mut names: Vec<&str> = self
            .0
            .keys()
            .chain(now.0.keys())
            .map(|name| &**name)
            .collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !at_once.contains(name) && words(self, name) != words(now, name));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(entries: &[(&str, &[&str])]) -> Said {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect();
        let entry = |(name, of): &(&str, &[&str])| ((*name).into(), words(of));
        Said(entries.iter().map(entry).collect())
    }

    #[test]
    fn what_changed_is_named_unless_it_is_followed() {
        let before = said(&[("ttl", &["1"]), ("files", &["a"]), ("open", &[])]);
        let now = said(&[("files", &["b"]), ("model", &["event"]), ("open", &[])]);
        assert_eq!(before.changed(&now, &["files"]), ["model", "ttl"]);
        assert_eq!(before.changed(&before, &[]), [""; 0]);
        let off = said(&[("ttl", &["1"]), ("files", &["a"])]);
        assert_eq!(
            before.changed(&off, &[]),
            [""; 0],
            "false is as good as nothing"
        );
    }
}
