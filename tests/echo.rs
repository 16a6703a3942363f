//! `cascade echo`: a server for any client, and a client for any server.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::process::{Process, Server};
use common::scene::Scene;
use common::subject::MODELS;
use common::{clients, eventually, sample};

fn serve(scene: &Scene, options: &[&str]) -> Server {
    scene
        .cascade("echo")
        .args(["serve", "-l", "127.0.0.1:0"])
        .args(options)
        .serve()
}

/// The client, to be given its standard streams.
fn client(server: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    let port = server.port().to_string();
    command.args(["echo", "client", "127.0.0.1", &port]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a program with this input; answers its exit status, its output and what it said.
fn run(mut command: Command, input: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let mut child = command.spawn().expect("a process");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A client that ends early does not read all.
            let _ = stdin.write_all(input);
        });
        let output = child.wait_with_output().expect("an end");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.stdout, said)
    })
}

#[track_caller]
fn comes_back(server: SocketAddr, input: &[u8]) {
    let (status, output, said) = run(client(server), input);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    assert!(output == input, "{} of {} bytes", output.len(), input.len());
}

#[test]
fn whatever_a_client_sends_comes_back() {
    let scene = Scene::new();
    let server = serve(&scene, &[]);
    for input in [
        &b""[..],
        b"\n",
        b"one\ntwo\nthree\n",
        b"the last line has no newline",
        b"\0\n\xff\xfe\r\n\0",
    ] {
        comes_back(server.address(), input);
    }
    comes_back(server.address(), &sample::random(3_000_000));
    server.stop().assert_no_error();
}

#[test]
fn no_line_is_too_long_for_the_buffers_between() {
    let scene = Scene::new();
    for model in ["process", "event"] {
        let server = serve(&scene, &["--model", model]);
        let mut line = vec![b'x'; 20_000_000];
        comes_back(server.address(), &line);
        line.extend(b"\nshort\n");
        comes_back(server.address(), &line);
    }
}

#[test]
fn each_line_comes_back_before_the_next_is_typed() {
    let scene = Scene::new();
    let server = serve(&scene, &[]);
    let mut child = client(server.address()).spawn().expect("a process");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    for line in ["hello\n", "\n", "world\n"] {
        stdin.write_all(line.as_bytes()).expect("it reads");
        let mut reply = String::new();
        stdout.read_line(&mut reply).expect("it prints");
        assert_eq!(reply, line);
    }
    drop(stdin);
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

#[test]
fn a_server_that_goes_away_is_an_error_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut child = client(address).spawn().expect("a process");
    // Standard input stays open: the client must not wait for it.
    let stdin = child.stdin.take();
    drop(listener.accept().expect("the client connects"));
    let output = child.wait_with_output().expect("an end");
    drop(stdin);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let expected = format!("cascade: cannot read from {address}: ");
    assert!(
        said.starts_with(&expected) && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn a_server_that_keeps_something_back_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client connects");
        let mut lines = Vec::new();
        stream.read_to_end(&mut lines).expect("it sends");
        stream.write_all(&lines[..4]).expect("it reads");
    });
    let (status, output, said) = run(client(address), b"one\ntwo\n");
    server.join().expect("the server did its part");
    assert_eq!((status, output.as_slice()), (Some(1), &b"one\n"[..]));
    assert!(said.starts_with("cascade: cannot read from "), "{said}");
}

#[test]
fn nobody_there_is_an_error() {
    let nobody = common::trackers::nobody_there();
    let (status, _, said) = run(client(nobody), b"hello\n");
    assert_eq!(status, Some(1));
    let expected = format!("cascade: cannot connect to {nobody}: ");
    assert!(
        said.starts_with(&expected) && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn nobody_who_reads_the_replies_is_no_error() {
    let scene = Scene::new();
    let server = serve(&scene, &[]);
    let port = server.address().port().to_string();
    let script = format!(
        "yes | {} echo client 127.0.0.1 {port} | head -n 1",
        env!("CARGO_BIN_EXE_cascade")
    );
    let shell = scene.program("bash").args([
        "-c",
        &format!("set -o pipefail; {script}; echo ${{PIPESTATUS[1]}}"),
    ]);
    let done = shell.run().assert_code(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("y\n0\n", ""));
}

#[test]
fn a_port_may_be_a_service_name_and_a_wrong_one_is_an_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    command.args(["echo", "client", "localhost", "no-such-service"]);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let (status, _, said) = run(command, b"");
    assert_eq!(status, Some(1));
    let expected = "cascade: cannot resolve localhost:no-such-service: ";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn netcat_is_served() {
    let there = Command::new("nc").arg("-h").output().is_ok();
    if !there {
        eprintln!("skipped: there is no nc");
        return;
    }
    let scene = Scene::new();
    let server = serve(&scene, &[]);
    let mut command = Command::new("nc");
    let port = server.address().port().to_string();
    command.args(["-N", "-w", "10", "127.0.0.1", &port]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (status, output, said) = run(command, b"hello\nworld");
    assert_eq!(output, b"hello\nworld", "{status:?} {said}");
}

#[test]
fn the_log_says_who_connects_and_how_much_arrives() {
    for model in MODELS {
        let scene = Scene::new();
        let server = serve(&scene, &["--model", model, "-v"]);
        let mut stream = clients::connect(server.address());
        let local = stream.local_addr().expect("it is connected");
        // The log does not depend on how the input is cut, either.
        for part in ["hel", "lo\nwor", "ld"] {
            stream.write_all(part.as_bytes()).expect("it reads");
        }
        stream.shutdown(Shutdown::Write).expect("it is connected");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        assert_eq!(reply, "hello\nworld");
        let process = server.process();
        eventually("the end is logged", || ended(process));
        let log = server.stop().stderr;
        let lines: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split_once("]: ").map(|(_, said)| said))
            .filter(|said| said.contains("received") || said.contains("connected"))
            .collect();
        let connected = format!("connected to (127.0.0.1, {})", local.port());
        let expected = [
            &connected[..],
            "server received 6 bytes",
            "server received 5 bytes",
        ];
        assert_eq!(lines, expected, "{model}: {log}");
        assert!(log.contains(&format!(" from {local}")), "{model}: {log}");
        assert!(
            log.contains(&format!(" of {local}: done")),
            "{model}: {log}"
        );
    }
}

/// Whether the end of a connection is in the log.
fn ended(server: &Process) -> bool {
    server
        .stderr()
        .lines()
        .any(|line| line.contains("]: end ") && line.ends_with(": done"))
}

#[test]
fn the_name_is_logged_where_that_was_asked_for() {
    let name = cascade::net::resolve::name_of(([127, 0, 0, 1], 80).into());
    for model in MODELS {
        let scene = Scene::new();
        let server = serve(&scene, &["--model", model, "-r"]);
        let stream = clients::connect(server.address());
        let local = stream.local_addr().expect("it is connected");
        let mut expected = format!("connected to (127.0.0.1, {})", local.port());
        if let Some(name) = &name {
            expected += &format!(", {name}");
        }
        eventually("the name is logged", || {
            let log = server.process().stderr();
            log.lines().any(|line| line.ends_with(&expected))
        });
        drop(stream);
        server.stop();
    }
}

#[test]
fn idle_clients_are_patient_clients() {
    let scene = Scene::new();
    let server = serve(&scene, &[]);
    let mut stream = clients::connect(server.address());
    stream.write_all(b"half").expect("it reads");
    stream
        .set_read_timeout(Some(Duration::from_secs(6)))
        .expect("an option");
    let error = stream.read(&mut [0]).expect_err("nothing comes");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    stream.write_all(b" a line\n").expect("it reads");
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"half a line\n");
}
