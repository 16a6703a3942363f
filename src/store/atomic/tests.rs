use super::*;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("readable")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn an_existing_file_is_kept_or_replaced_as_asked_and_nothing_else_is_left() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state");
    write(&path, b"one", Existing::Keep).expect("written");
    let error = write(&path, b"two", Existing::Keep).expect_err("it exists");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).expect("readable"), b"one");
    write(&path, b"three", Existing::Replace).expect("replaced");
    assert_eq!(fs::read(&path).expect("readable"), b"three");
    assert_eq!(names(directory.path()), ["state"]);
}

#[test]
fn a_link_stays_and_a_directory_or_a_device_is_not_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "old").expect("written");
    std::os::unix::fs::symlink("file", &link).expect("linked");
    write(&link, b"new", Existing::Replace).expect("replaced");
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(fs::read(&file).expect("readable"), b"new");

    let error = write(directory.path(), b"", Existing::Replace).expect_err("a directory");
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let error = write(&pipe, b"", Existing::Replace).expect_err("a pipe");
    assert_eq!(error.to_string(), "not a regular file");
    assert_eq!(names(directory.path()), ["file", "link", "pipe"]);
}

#[test]
fn of_many_writers_that_may_not_replace_one_wins() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state");
    let wins = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| write(&path, b"x", Existing::Keep).is_ok()))
            .collect();
        writers
            .into_iter()
            .filter_map(|writer| writer.join().ok())
            .filter(|won| *won)
            .count()
    });
    assert_eq!(wins, 1);
    assert_eq!(names(directory.path()), ["state"]);
}

#[test]
fn a_writer_that_is_killed_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    if nameless(directory.path()).is_err() {
        return;
    }
    let path = directory.path().join("state");
    for existing in [Existing::Keep, Existing::Replace] {
        let before = names(directory.path());
        write_with(&path, existing, |_| {
            // As if it were killed here.
            assert_eq!(names(directory.path()), before);
            Ok(())
        })
        .expect("written");
    }
    assert_eq!(names(directory.path()), ["state"]);
}

#[test]
fn a_file_that_cannot_be_given_a_name_is_copied() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state");
    // What lies in another file system cannot be given a name in this one.
    let elsewhere = File::open("/proc/self/cmdline").expect("/proc is mounted");
    let temporary = Temporary::of(elsewhere, &path).expect("a copy");
    assert!(!fs::read(&temporary.path).expect("readable").is_empty());
    temporary.rename(&path, Existing::Keep).expect("renamed");
    assert_eq!(names(directory.path()), ["state"]);
}

#[test]
fn what_is_left_of_a_file_is_swept_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let left = temporary_name(&at("state"), 7);
    assert_eq!(left, ".state.cascade-0000000000000007.tmp");
    let others = [
        ".other.cascade-0000000000000007.tmp",
        ".state.cascade-0000000000000008.tmp",
        ".state.cascade-000000000000007.tmp",
        ".state.cascade-x000000000000007.tmp",
        "state",
    ];
    for other in others.iter().filter(|other| !other.contains("8.tmp")) {
        fs::write(at(other), "").expect("written");
    }
    std::os::unix::fs::symlink("state", at(others[1])).expect("linked");
    fs::create_dir(at(".state.cascade-0000000000000009.tmp")).expect("made");
    let before = names(directory.path());
    fs::write(directory.path().join(&left), "half").expect("written");
    assert_eq!(sweep(&at("state")).expect("readable"), 1);
    assert_eq!(names(directory.path()), before);
}

#[test]
fn the_longest_name_has_a_temporary_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x".repeat(255));
    write(&path, b"one", Existing::Replace).expect("written");
    Temporary::create(&path).expect("a name");
}

#[test]
fn a_bare_name_lies_in_the_working_directory() {
    assert_eq!(directory_of(Path::new("x")), Path::new("."));
    assert_eq!(directory_of(Path::new("a/x")), Path::new("a"));
    assert_eq!(directory_of(Path::new("/x")), Path::new("/"));
}
