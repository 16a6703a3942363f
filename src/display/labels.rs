//! Names that are cut to fit a column, and stay distinct.

use console::measure_text_width;

/// What stands for what was cut.
const CUT: &str = "…";

/// A label for each path, of at most so many columns: its last part, or as much of the path as tells it from the
/// others; what is too long is cut in the middle, elsewhere only where the labels would be the same otherwise.
///
/// ```
/// use cascade::display::labels;
/// assert_eq!(labels(&["x/notes.txt", "y/slides.pdf"], 12), ["notes.txt", "slides.pdf"]);
/// assert_eq!(labels(&["x/disk.img", "y/disk.img"], 12), ["x/disk.img", "y/disk.img"]);
/// assert_eq!(labels(&["a-long-name-of-a-film.mp4"], 12), ["a-long…m.mp4"]);
/// ```
pub fn labels(paths: &[&str], columns: usize) -> Vec<String> {
    let names = last_parts(paths);
    let cut = |keep_first: usize| -> Vec<String> {
        names
            .iter()
            .map(|name| cut_at(name, columns, keep_first))
            .collect()
    };
    // The middle first, then ever further from it.
    let room = columns.saturating_sub(1);
    let middle = room.div_ceil(2);
    let places = (0..=room).flat_map(|off| [middle.checked_sub(off), Some(middle + off)]);
    let places = places.flatten().filter(|place| *place <= room);
    places
        .map(cut)
        .find(|labels| are_distinct(labels, &names))
        .unwrap_or_else(|| without_what_is_common(&names, columns))
}

/// The last parts of the paths, as many as make them distinct.
fn last_parts<'a>(paths: &[&'a str]) -> Vec<&'a str> {
    let last = |path: &'a str, parts: usize| {
        let slash = path.rmatch_indices('/').nth(parts - 1);
        slash.map_or(path, |(at, _)| &path[at + 1..])
    };
    paths
        .iter()
        .map(|path| {
            let is_alone = |parts: &usize| {
                let others = paths.iter().filter(|other| *other != path);
                others
                    .into_iter()
                    .all(|other| last(other, *parts) != last(path, *parts))
            };
            let most = path.matches('/').count() + 1;
            let parts = (1..=most).find(is_alone).unwrap_or(most);
            last(path, parts)
        })
        .collect()
}

/// Whether different names have different labels.
fn are_distinct(labels: &[String], names: &[&str]) -> bool {
    let mut pairs: Vec<_> = labels.iter().zip(names).collect();
    pairs.sort();
    pairs.dedup();
    pairs.windows(2).all(|pair| pair[0].0 != pair[1].0)
}

/// Cuts a name in its middle so that this many columns of its beginning stay.
fn cut_at(name: &str, columns: usize, keep_first: usize) -> String {
    if measure_text_width(name) <= columns {
        return name.into();
    }
    let room = columns.saturating_sub(1);
    let first = first_columns(name, keep_first);
    let last = last_columns(name, room.saturating_sub(measure_text_width(first)));
    first_columns(&format!("{first}{CUT}{last}"), columns).into()
}

/// Names whose difference lies between a long beginning and a long end that they have in common: neither fits.
fn without_what_is_common(names: &[&str], columns: usize) -> Vec<String> {
    let long: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| measure_text_width(name) > columns)
        .collect();
    let common = |name: &str, of: fn(&str, &str) -> usize| {
        long.iter()
            .filter(|other| **other != name)
            .map(|other| of(name, other))
            .max()
            .unwrap_or(0)
    };
    names
        .iter()
        .map(|name| {
            if measure_text_width(name) <= columns {
                return (*name).to_owned();
            }
            let begin = common(name, common_beginning);
            let end = (name.len() - common(name, common_end)).max(begin);
            let room = columns.saturating_sub(2);
            format!("{CUT}{}{CUT}", around(name, begin, end, room))
        })
        .collect()
}

/// The part of a text from `begin` to `end`, with as much of what is around it as has room.
fn around(text: &str, mut begin: usize, mut end: usize, columns: usize) -> &str {
    let (mut grows, mut before) = (true, true);
    while grows {
        grows = false;
        for _ in 0..2 {
            before = !before;
            let more = match before {
                true => text[..begin]
                    .chars()
                    .next_back()
                    .map(|c| (begin - c.len_utf8(), end)),
                false => text[end..]
                    .chars()
                    .next()
                    .map(|c| (begin, end + c.len_utf8())),
            };
            let fits =
                |range: &(usize, usize)| measure_text_width(&text[range.0..range.1]) <= columns;
            if let Some(range) = more.filter(fits) {
                (begin, end) = range;
                grows = true;
            }
        }
    }
    first_columns(&text[begin..end], columns)
}

/// Bytes of the characters at the beginning that are the same.
fn common_beginning(one: &str, other: &str) -> usize {
    let pairs = one.chars().zip(other.chars());
    pairs
        .take_while(|(one, other)| one == other)
        .map(|(one, _)| one.len_utf8())
        .sum()
}

/// Bytes of the characters at the end that are the same.
fn common_end(one: &str, other: &str) -> usize {
    let pairs = one.chars().rev().zip(other.chars().rev());
    pairs
        .take_while(|(one, other)| one == other)
        .map(|(one, _)| one.len_utf8())
        .sum()
}

fn first_columns(text: &str, columns: usize) -> &str {
    let ends = text
        .char_indices()
        .map(|(at, character)| at + character.len_utf8());
    let end = ends
        .take_while(|end| measure_text_width(&text[..*end]) <= columns)
        .last();
    &text[..end.unwrap_or(0)]
}

fn last_columns(text: &str, columns: usize) -> &str {
    let starts = text.char_indices().rev().map(|(at, _)| at);
    let start = starts
        .take_while(|start| measure_text_width(&text[*start..]) <= columns)
        .last();
    &text[start.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_tells_long_names_apart_stays() {
        let parts = [
            "lecture-07-part-1-recording.mp4",
            "lecture-07-part-2-recording.mp4",
        ];
        assert_eq!(
            labels(&parts, 20),
            ["lect…1-recording.mp4", "lect…2-recording.mp4"]
        );
    }

    #[test]
    fn a_difference_between_long_beginnings_and_ends_is_shown_alone() {
        let name = |middle: &str| format!("{}{middle}{}", "a".repeat(40), "b".repeat(40));
        let (one, two) = (name("-1-"), name("-2-"));
        assert_eq!(
            labels(&[&one, &two, "short"], 10),
            ["…aa-1-bbb…", "…aa-2-bbb…", "short"]
        );
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let label = &labels(&["映画映画映画映画.mp4"], 11)[0];
        assert_eq!(label, "映画…画.mp4");
        assert!(measure_text_width(label) <= 11);
    }

    proptest! {
        #[test]
        fn no_label_is_wider_than_its_column(
            names in proptest::collection::vec("[a-cé映/]{0,30}", 1..6), columns in 0usize..24,
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let labels = labels(&names, columns);
            prop_assert_eq!(labels.len(), names.len());
            for label in labels {
                prop_assert!(measure_text_width(&label) <= columns.max(2), "{:?}", label);
            }
        }
    }
}
