//! The part of HTTP/1.1 that a read-only page needs: one request, one response, and the connection is closed. Pure. RFC
//! 9110, RFC 9112.
//!
//! ```
//! use cascade::status::http::{Asked, Resource, parse};
//!
//! use cascade::status::hosts::Hosts;
//!
//! let request = b"GET /metrics HTTP/1.1\r\nHost: tracker:9100\r\n\r\n";
//! let hosts = Hosts::new([], ["tracker"]);
//! assert!(matches!(parse(&request[..20], &hosts), Ok(None)), "something is missing");
//! let Ok(Some(Asked { resource, body })) = parse(request, &hosts) else { panic!("a request") };
//! assert_eq!((resource, body), (Resource::Metrics, true));
//! ```

use std::time::SystemTime;

use httparse::{EMPTY_HEADER, Error, Status};

use super::hosts::Hosts;

/// The longest head of a request: request line and header fields.
pub const MAX_HEAD: usize = 8192;
/// The most header fields.
const MAX_FIELDS: usize = 64;

/// The resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// The HTML page.
    Page,
    /// The metrics for Prometheus.
    Metrics,
    /// The JSON object.
    Json,
}

impl Resource {
    /// All resources, with their paths.
    const ALL: [(&'static str, Self); 3] = [
        ("/", Self::Page),
        ("/metrics", Self::Metrics),
        ("/status.json", Self::Json),
    ];

    /// Its media type.
    fn media_type(self) -> &'static str {
        match self {
            Self::Page => "text/html; charset=utf-8",
            Self::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// A valid request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The resource.
    pub resource: Resource,
    /// Whether the body is wanted (GET), or only the header (HEAD).
    pub body: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is malformed (400).
    BadRequest,
    /// It is for another host, whose name may have been made to lead here (421).
    Misdirected,
    /// There is no such resource (404).
    NotFound,
    /// The method is not GET or HEAD (405).
    MethodNotAllowed,
    /// Its first line is too long.
    UriTooLong,
    /// It is too long.
    FieldsTooLarge,
    /// There are too many connections.
    Unavailable,
    /// It is of another version than 1.x.
    Version,
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Self::BadRequest => "400 Bad Request",
            Self::Misdirected => "421 Misdirected Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::UriTooLong => "414 URI Too Long",
            Self::FieldsTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
            Self::Version => "505 HTTP Version Not Supported",
        }
    }

    fn explain(self) -> &'static str {
        match self {
            Self::BadRequest => "this is no request of HTTP/1.1, or it does not name one host",
            Self::Misdirected => {
                "these pages are not those of the host that was asked for; its name can be allowed with --http-host"
            }
            Self::NotFound => "try /, /metrics or /status.json",
            Self::MethodNotAllowed => "things can only be looked at here: GET or HEAD",
            Self::UriTooLong | Self::FieldsTooLarge => "a request has 8192 bytes at most",
            Self::Unavailable => "there are too many connections, try again later",
            Self::Version => "this is a server of HTTP/1.1",
        }
    }

    /// Whether the request was understood.
    pub fn is_understood(self) -> bool {
        matches!(
            self,
            Self::Misdirected | Self::NotFound | Self::MethodNotAllowed | Self::Unavailable
        )
    }
}

/// Parses a request; `None` while its head is incomplete. What follows the head is ignored.
///
/// # Errors
/// Why the request is refused.
pub fn parse(bytes: &[u8], allowed: &Hosts) -> Result<Option<Asked>, Refusal> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let head = &bytes[..bytes.len().min(MAX_HEAD)];
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(Status::Partial) if !head.contains(&b'\n') => return Err(Refusal::UriTooLong),
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => return Err(Refusal::FieldsTooLarge),
        Err(Error::Version) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::BadRequest),
    }
    check_host(&request, allowed)?;
    let body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Err(Refusal::MethodNotAllowed),
    };
    let resource = resource(request.path.unwrap_or_default())?;
    Ok(Some(Asked { resource, body }))
}

/// Whether the host that is meant is one for which to answer. RFC 9112, 3.2: of a request that names no host, or two,
/// nobody knows whom it means; and where the target is a URI, that is the host.
fn check_host(request: &httparse::Request<'_, '_>, allowed: &Hosts) -> Result<(), Refusal> {
    let is_host = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("Host");
    let mut hosts = request.headers.iter().filter(is_host);
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => std::str::from_utf8(host.value).map_err(|_| Refusal::BadRequest)?,
        (None, _) if request.version == Some(0) => return Ok(()),
        _ => return Err(Refusal::BadRequest),
    };
    let target = request.path.unwrap_or_default();
    let named = target
        .split_once("://")
        .filter(|_| !target.starts_with('/'));
    let host = match named {
        Some((_, rest)) => rest.split(['/', '?', '#']).next().unwrap_or_default(),
        None => host,
    };
    match allowed.allow(host) {
        true => Ok(()),
        false => Err(Refusal::Misdirected),
    }
}

/// Resolves a request target: a path or an absolute URI, with or without a query.
fn resource(target: &str) -> Result<Resource, Refusal> {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => match rest.find('/') {
            Some(slash) => &rest[slash..],
            None => "/",
        },
        _ => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let known = Resource::ALL.iter().find(|(known, _)| *known == path);
    known
        .map(|(_, resource)| *resource)
        .ok_or(Refusal::NotFound)
}

/// A successful response.
pub fn response(asked: Asked, contents: &str, now: SystemTime) -> Vec<u8> {
    let media_type = asked.resource.media_type();
    encode("200 OK", media_type, "", contents, asked.body, now)
}

/// An error response.
pub fn refusal(refusal: Refusal, now: SystemTime) -> Vec<u8> {
    let allow = match refusal {
        Refusal::MethodNotAllowed => "Allow: GET, HEAD\r\n",
        _ => "",
    };
    let (status, text) = (refusal.status(), refusal.explain());
    let contents = format!("{status}: {text}\n");
    let media_type = "text/plain; charset=utf-8";
    encode(status, media_type, allow, &contents, true, now)
}

/// Security headers: the page contains its style, and a browser that shows it loads nothing, runs nothing and stores
/// nothing.
fn encode(
    status: &str,
    media_type: &str,
    more: &str,
    contents: &str,
    body: bool,
    now: SystemTime,
) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\n\
         Date: {date}\r\n\
         Content-Type: {media_type}\r\n\
         Content-Length: {length}\r\n\
         {more}\
         Cache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'\r\n\
         Referrer-Policy: no-referrer\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Connection: close\r\n\r\n",
        date = date(now),
        length = contents.len(),
    );
    let contents = if body { contents } else { "" };
    [head.as_bytes(), contents.as_bytes()].concat()
}

/// A date in HTTP's format: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(now: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let day = DAYS[(since.as_secs() / 86_400 % 7) as usize];
    // 1994-11-06T08:49:37Z
    let text = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string();
    let month = text[5..7].parse::<usize>().unwrap_or(1);
    format!(
        "{day}, {} {} {} {} GMT",
        &text[8..10],
        MONTHS[(month - 1) % 12],
        &text[..4],
        &text[11..19]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    /// For any host.
    fn parse(bytes: &[u8]) -> Result<Option<Asked>, Refusal> {
        super::parse(bytes, &Hosts::all())
    }

    #[test]
    fn what_is_for_another_host_is_not_answered() {
        let hosts = Hosts::new([([127, 0, 0, 1], 80).into()], ["tracker"]);
        let refused = |request: &str| super::parse(request.as_bytes(), &hosts).err();
        for ours in [
            "GET / HTTP/1.1\r\nHost: tracker:9100\r\n\r\n",
            "GET http://tracker/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
        ] {
            assert_eq!(refused(ours), None, "{ours}");
        }
        for other in [
            "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n",
            "GET http://evil.example HTTP/1.1\r\nHost: tracker\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        ] {
            assert_eq!(refused(other), Some(Refusal::Misdirected), "{other}");
        }
    }

    fn get(path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
    }

    #[test]
    fn there_are_three_things_under_their_paths() {
        for (path, resource) in [
            ("/", Resource::Page),
            ("/?refresh=0", Resource::Page),
            ("/metrics", Resource::Metrics),
            ("/metrics?name[]=x", Resource::Metrics),
            ("/status.json", Resource::Json),
            ("http://tracker:9100/status.json", Resource::Json),
            ("http://tracker:9100", Resource::Page),
        ] {
            let asked = Asked {
                resource,
                body: true,
            };
            assert_eq!(parse(&get(path)), Ok(Some(asked)), "{path}");
        }
        for path in [
            "/metrics/",
            "//",
            "/%6detrics",
            "/../metrics",
            "*",
            "/a://b/metrics",
            "/favicon.ico",
        ] {
            assert_eq!(parse(&get(path)), Err(Refusal::NotFound), "{path}");
        }
    }

    #[test]
    fn only_looking_is_allowed() {
        for method in [
            "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "get", "BREW",
        ] {
            let request = format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(
                parse(request.as_bytes()),
                Err(Refusal::MethodNotAllowed),
                "{method}"
            );
        }
        let head = parse(b"HEAD / HTTP/1.0\r\n\r\n").expect("a request");
        assert!(!head.expect("it is complete").body);
    }

    #[test]
    fn exactly_one_host_is_named_but_by_the_old() {
        let parse = |text: &str| parse(text.as_bytes()).map(|asked| asked.is_some());
        assert_eq!(parse("GET / HTTP/1.0\r\n\r\n"), Ok(true));
        assert_eq!(parse("GET / HTTP/1.1\r\nhOsT: x\r\n\r\n"), Ok(true));
        for wrong in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
            "\0\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/1.1\r\nHost x\r\n\r\n",
        ] {
            assert_eq!(parse(wrong), Err(Refusal::BadRequest), "{wrong:?}");
        }
        assert_eq!(
            parse("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Err(Refusal::Version)
        );
    }

    #[test]
    fn a_request_is_so_long_and_no_longer() {
        let with = |name: &str, length: usize| {
            let field = format!("{name}: {}\r\n", "y".repeat(length));
            format!("GET / HTTP/1.1\r\nHost: x\r\n{field}\r\n").into_bytes()
        };
        assert!(matches!(parse(&with("X", 8000)), Ok(Some(_))));
        assert_eq!(parse(&with("X", 9000)), Err(Refusal::FieldsTooLarge));
        assert_eq!(parse(&with("X", 9000)[..8191]), Ok(None));
        assert_eq!(
            parse(&with("X", 9000)[..8192]),
            Err(Refusal::FieldsTooLarge)
        );
        let path = format!("/{}", "x".repeat(9000));
        assert_eq!(parse(&get(&path)), Err(Refusal::UriTooLong));
        let many = "A: b\r\n".repeat(MAX_FIELDS + 1);
        let many = format!("GET / HTTP/1.1\r\n{many}\r\n");
        assert_eq!(parse(many.as_bytes()), Err(Refusal::FieldsTooLarge));
    }

    #[test]
    fn a_response_says_how_long_it_is_and_that_it_is_the_last() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for body in [true, false] {
            let asked = Asked {
                resource: Resource::Json,
                body,
            };
            let text = String::from_utf8(response(asked, "{}\n", now)).expect("text");
            let (head, rest) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            for field in [
                "Date: Sun, 06 Nov 1994 08:49:37 GMT",
                "Content-Type: application/json",
                "Content-Length: 3",
                "Connection: close",
            ] {
                assert!(head.lines().any(|line| line == field), "{field}\n{head}");
            }
            assert_eq!(rest, if body { "{}\n" } else { "" });
        }
        let refused = refusal(Refusal::MethodNotAllowed, now);
        let refused = String::from_utf8(refused).expect("text");
        assert!(refused.contains("\r\nAllow: GET, HEAD\r\n"), "{refused}");
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_does_harm(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        /// However a request is cut: what is not complete is waited for, and never taken for another.
        #[test]
        fn a_part_of_a_request_is_none_yet(cut in 0usize..200, path in "/[a-z.]{0,20}", field in "[a-zA-Z-]{1,9}: [ -~]{0,99}") {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n");
            let cut = cut.min(request.len() - 1);
            let part = parse(&request.as_bytes()[..cut]);
            prop_assert!(matches!(part, Ok(None) | Err(Refusal::BadRequest)), "{:?}", part);
        }
    }
}
