//! What the files beside a data file are called: `NAME.cascade`, and `NAME.HASH8.part` while it is incomplete.
//!
//! A name may fill all the 255 bytes that a file system has for one, and then leaves no room for an ending. Of such a name
//! a [`stem`] stands before the ending, the same for whoever makes the file or looks for it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::atomic::directory_of;
use crate::hash::{CascadeHash, FileHash};

/// The last component of the name of a cascade file, after a dot.
pub const EXTENSION: &str = "cascade";
/// The bytes of the longest name there can be: NAME_MAX, and the protocol's limit for the name in a link.
const LONGEST: usize = 255;
/// Bytes of the longest name that leaves room for `.cascade`.
const ROOM: usize = LONGEST - EXTENSION.len() - 1;
/// How many hexadecimal digits of a hash tell long names apart.
const DIGITS: usize = 16;
/// How many of the cascade hash stand in the name of a part.
const PART_DIGITS: usize = 8;
/// Between what is left of the name and the digits.
const MARK: u8 = b'~';

/// The cascade file that describes a data file by its name: beside it, with `.cascade`.
pub fn cascade_path(data: &Path) -> PathBuf {
    with_ending(data, EXTENSION, ROOM)
}

/// `DATA.HASH8.part`: where new data grow. The digits, the first of the cascade hash, keep the downloads of two versions
/// apart, and those of other programs.
pub fn part_path(data: &Path, hash: &CascadeHash) -> PathBuf {
    let ending = format!("{}.part", &hash.to_string()[..PART_DIGITS]);
    with_ending(data, &ending, LONGEST - ending.len() - 1)
}

/// `DATA.part`: where data of earlier versions grew, and where those of other programs grow.
pub fn old_part_path(data: &Path) -> PathBuf {
    with_ending(data, "part", ROOM)
}

/// The data file that a cascade file describes by its name: beside it, without `.cascade`; where the name before that may
/// be a [`stem`], the file beside it of which it is one, if there is such a file.
///
/// Nothing where the name does not end so.
pub fn data_path(cascade: &Path) -> Option<PathBuf> {
    let ends_so = cascade
        .extension()
        .is_some_and(|extension| extension == EXTENSION);
    let data = ends_so.then(|| cascade.with_extension(""))?;
    Some(of_stem(&data).unwrap_or(data))
}

/// The same in another directory than that of the cascade file.
pub fn data_path_in(directory: &Path, cascade: &Path) -> Option<PathBuf> {
    data_path(&directory.join(cascade.file_name()?))
}

/// `room`: the bytes of the longest name that leaves room for the ending.
fn with_ending(data: &Path, ending: &str, room: usize) -> PathBuf {
    let end = |mut name: OsString| {
        name.push(".");
        name.push(ending);
        name
    };
    match data.file_name().and_then(|name| stem(name, room)) {
        Some(stem) => data.with_file_name(end(stem)),
        None => end(data.as_os_str().to_owned()).into(),
    }
}

/// What stands for a name that leaves no room for an ending: its beginning, cut between two characters, and a hash of the
/// whole. Nothing for one that leaves room, and for one that no file can have.
fn stem(name: &OsStr, room: usize) -> Option<OsString> {
    let name = name.as_bytes();
    if !(room + 1..=LONGEST).contains(&name.len()) {
        return None;
    }
    let room = room - DIGITS - 1;
    // A character of UTF-8 has three more bytes at most; what has more of them is none.
    let cut = (room - 3..=room).rev().find(|at| name[*at] & 0xc0 != 0x80);
    let hash = FileHash::of(name).to_string();
    let mut stem = name[..cut.unwrap_or(room)].to_vec();
    stem.push(MARK);
    stem.extend_from_slice(&hash.as_bytes()[..DIGITS]);
    Some(OsString::from_vec(stem))
}

/// The file beside `path` whose stem is its name.
fn of_stem(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    if !may_be_stem(name.as_bytes()) || path.exists() {
        return None;
    }
    let mut there = directory_of(path).read_dir().ok()?.flatten();
    let data =
        there.find(|entry| stem(&entry.file_name(), ROOM).is_some_and(|stem| stem == name))?;
    Some(path.with_file_name(data.file_name()))
}

fn may_be_stem(name: &[u8]) -> bool {
    (ROOM - 3..=ROOM).contains(&name.len()) && name[name.len() - DIGITS - 1] == MARK
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn ended(name: &str) -> [String; 2] {
        let name = Path::new(name);
        [cascade_path(name), part_path(name, &HASH)].map(|path| {
            let path = path.into_os_string().into_string();
            path.expect("it was cut between characters")
        })
    }

    const HASH: CascadeHash = CascadeHash([0xab; 32]);

    #[test]
    fn the_data_file_lies_beside_its_cascade_file() {
        assert_eq!(
            data_path(Path::new("a/b.iso.cascade")),
            Some(PathBuf::from("a/b.iso"))
        );
        assert_eq!(
            cascade_path(Path::new("a/b.iso")),
            Path::new("a/b.iso.cascade")
        );
        assert_eq!(data_path(Path::new("a/b.iso")), None);
        assert_eq!(data_path(Path::new(".cascade")), None);
    }

    #[test]
    fn a_name_that_leaves_room_has_all_of_it_in_those_beside_it() {
        let name = "n".repeat(241);
        assert_eq!(
            ended(&name),
            [format!("{name}.cascade"), format!("{name}.abababab.part")]
        );
        let old = old_part_path(Path::new(&name));
        assert_eq!(old, Path::new(&format!("{name}.part")));
        // No file has such a name, and so none beside it is to be made.
        let name = "n".repeat(256);
        assert_eq!(ended(&name)[1], format!("{name}.abababab.part"));
    }

    #[test]
    fn a_name_that_leaves_none_is_shortened_the_same_for_all_beside_it() {
        for length in 248..=255 {
            for character in ["n", "é", "€", "🦀"] {
                let name = character.repeat(length / character.len());
                let name = format!("{name}{}", "x".repeat(length - name.len()));
                let [cascade, part] = ended(&name);
                for path in [&cascade, &part] {
                    assert!((252..=255).contains(&path.len()), "{path}");
                    assert!(path.starts_with(&character.repeat(200 / character.len())));
                }
                assert!(part.ends_with(".abababab.part"), "{part}");
            }
        }
    }

    #[test]
    fn names_that_differ_at_their_ends_have_different_ones() {
        let [one, other] = ["a", "b"].map(|end| ended(&("n".repeat(254) + end)));
        assert_ne!(one[0], other[0]);
        // It is promised to whoever looks for a file: that of yesterday is found today.
        let digits = "0597236d0a37e288";
        assert_eq!(one[0], format!("{}~{digits}.cascade", "n".repeat(230)));
        assert_eq!(
            one[1],
            format!("{}~{digits}.abababab.part", "n".repeat(224))
        );
    }

    #[test]
    fn a_name_that_is_no_text_is_shortened_too() {
        let name = OsStr::from_bytes(&[0x80; 255]);
        let cascade = cascade_path(Path::new(name));
        assert_eq!(cascade.as_os_str().len(), 255);
    }

    #[test]
    fn the_data_file_of_a_shortened_name_is_found_where_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("é".repeat(127));
        let cascade = cascade_path(&data);
        let short = cascade.with_extension("");
        assert_eq!(data_path(&cascade), Some(short));
        fs::write(&data, "").expect("written");
        assert_eq!(data_path(&cascade), Some(data));
    }
}
