//! The list of files of a node: those that were named, and those of the directory that it watches.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cascade_file::CascadeFile;
use crate::hash::CascadeHash;
use crate::store::names::data_path;
use crate::store::open_data;
use crate::text::escape_path;

/// A file that the node is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The cascade file.
    pub cascade: PathBuf,
    /// Where the data lie.
    pub data: PathBuf,
    /// Its name on the network.
    pub hash: CascadeHash,
}

/// Which files a node is to have.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FileList {
    /// Those that were named.
    pub named: Vec<FileSpec>,
    /// A directory of which all cascade files are wanted too, their data beside them.
    #[serde(with = "bytes_of_paths")]
    pub watch: Option<PathBuf>,
}

/// A file as the user names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// The cascade file.
    #[serde(with = "bytes_of_path")]
    pub cascade: PathBuf,
    /// Where the data lie.
    #[serde(with = "bytes_of_path")]
    pub data: PathBuf,
    /// What the cascade file must be; where there is none, it is fetched from a peer.
    pub hash: Option<CascadeHash>,
    /// The tracker that its link names, `HOST:PORT`.
    pub tracker: Option<String>,
}

impl FileList {
    /// The same files as they are called where these paths lead.
    ///
    /// # Errors
    /// Where one leads nowhere.
    pub fn at(&self, lead: impl Fn(&Path) -> anyhow::Result<PathBuf>) -> anyhow::Result<Self> {
        let named = self.named.iter().map(|file| {
            Ok(FileSpec {
                cascade: lead(&file.cascade)?,
                data: lead(&file.data)?,
                hash: file.hash,
                tracker: file.tracker.clone(),
            })
        });
        Ok(Self {
            named: named.collect::<anyhow::Result<_>>()?,
            watch: self.watch.as_deref().map(lead).transpose()?,
        })
    }

    /// The cascade files as they are now, and where their data lie.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn all(&self) -> anyhow::Result<Vec<FileSpec>> {
        let mut files = self.named.clone();
        if let Some(directory) = &self.watch {
            let reading = || format!("cannot read directory {}", escape_path(directory));
            let mut found = Vec::new();
            for entry in directory.read_dir().with_context(reading)? {
                let cascade = entry.with_context(reading)?.path();
                found.extend(data_of(&cascade).map(|data| (cascade, data)));
            }
            found.sort();
            let spec = |(cascade, data)| FileSpec {
                cascade,
                data,
                hash: None,
                tracker: None,
            };
            files.extend(found.into_iter().map(spec));
        }
        Ok(files)
    }

    /// The same with their hashes; each file once. Hands a file that is no cascade file to `leave_out`.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn read(&self, leave_out: impl Fn(&anyhow::Error)) -> anyhow::Result<Vec<Wanted>> {
        let mut there = HashSet::new();
        let mut wanted = Vec::new();
        for spec in self.all()? {
            // One that was to be fetched and that nobody had is none.
            if spec.is_to_be_fetched() {
                continue;
            }
            let FileSpec { cascade, data, .. } = spec;
            let reading = || format!("cannot read {}", escape_path(&cascade));
            let read = || {
                let file = open_data(&cascade).with_context(reading)?;
                anyhow::Ok(CascadeFile::read_open(&file).with_context(reading)?.hash())
            };
            let hash = match read() {
                Ok(hash) => hash,
                Err(error) => {
                    leave_out(&error);
                    continue;
                }
            };
            if there.insert(data.clone()) {
                wanted.push(Wanted {
                    cascade,
                    data,
                    hash,
                });
            }
        }
        Ok(wanted)
    }
}

impl FileSpec {
    /// Whether the cascade file has to be fetched from a peer.
    pub fn is_to_be_fetched(&self) -> bool {
        self.hash.is_some() && !self.cascade.exists()
    }
}

/// How the list is read again.
pub struct ReadList(pub Box<dyn Fn() -> anyhow::Result<FileList> + Send + Sync>);

impl fmt::Debug for ReadList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadList").finish_non_exhaustive()
    }
}

/// Paths on their way between processes: they need not be text.
mod bytes_of_path {
    use std::ffi::{OsStr, OsString};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        OsStr::serialize(path.as_os_str(), to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(from).map(PathBuf::from)
    }
}

/// The same of a path that may be missing.
mod bytes_of_paths {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        let path = path.as_ref().map(|path| path.as_os_str());
        Option::serialize(&path, to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<OsString>::deserialize(from)?.map(PathBuf::from))
    }
}

/// Where the data of a cascade file of a directory lie: beside it. Hidden files are none, as for a shell.
fn data_of(cascade: &Path) -> Option<PathBuf> {
    let name = cascade.file_name()?.as_encoded_bytes();
    (!name.starts_with(b".")).then(|| data_path(cascade))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_list_arrives_as_it_was_whatever_the_bytes_of_its_paths_are() {
        let path = PathBuf::from(OsStr::from_bytes(b"a \xff/\"b\n"));
        let list = FileList {
            named: vec![FileSpec {
                cascade: path.join("x.cascade"),
                data: path.clone(),
                hash: Some(CascadeHash([7; 32])),
                tracker: Some("tracker:8888".into()),
            }],
            watch: Some(path),
        };
        let text = serde_json::to_vec(&list).expect("it can be sent");
        let arrived: FileList = serde_json::from_slice(&text).expect("it can be read");
        assert_eq!((arrived.named, arrived.watch), (list.named, list.watch));
    }
}
