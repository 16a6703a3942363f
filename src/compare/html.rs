//! The report as one page: no script, no network, light and dark as its reader has it.

mod tables;

use super::plan::{Mode, ServiceKind};
use super::plots;
use super::report::Report;

use super::terminal::crash_in_words;
use super::units::plural;
use crate::text::escape_markup;

/// Colours, type and layout.
const STYLE: &str = include_str!("html/page.css");

/// The whole page.
pub fn render(report: &Report) -> String {
    let title = format!("cascade compare: {}", report.service);
    let body: String = [
        head(report),
        throughput(report),
        latency(report),
        memory(report),
        section(
            "registry",
            "A registry of many peers",
            &tables::registry(&report.registry),
        ),
        section(
            "sandbox",
            "The cost of the sandbox",
            &tables::sandbox(report.sandbox.as_ref()),
        ),
        creation(report),
        isolation(report),
        claims(report),
        section("tables", "All figures", &tables::all(report)),
    ]
    .concat();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn head(report: &Report) -> String {
    let models: String = report
        .models
        .iter()
        .map(|model| {
            let class = plots::class(model);
            format!("<li class=\"{class}\">{}</li>", escape_markup(model))
        })
        .collect();
    let warnings: String = report
        .warnings()
        .iter()
        .map(|warning| {
            format!(
                "<p class=\"warning\">Warning: {}.</p>\n",
                escape_markup(warning)
            )
        })
        .collect();
    format!(
        "<header>\n<h1>Which server model, for which load?</h1>\n\
         <p class=\"lead\">{what}, served by the same code under {models_count}, and driven by clients on the same \
         machine. Nothing but the model differs.</p>\n\
         <dl><dt>Machine</dt><dd>{machine}</dd><dt>Measured</dt><dd>each cell for {duration:.2} s in {rounds}; medians, \
         with the smallest and the largest round; {took:.0} s in all, {when}, {program}</dd></dl>\n\
         {warnings}<ul class=\"legend\">{models}<li class=\"generator\">load generator alone (upper limit of what can be measured)</li></ul>\n</header>\n",
        what = escape_markup(what(report.service)),
        models_count = plural(report.models.len(), "model"),
        machine = escape_markup(&report.machine.to_string()),
        duration = report.duration,
        rounds = plural(report.rounds, "round"),
        took = report.took,
        when = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(report.began)
        ),
        program = escape_markup(&report.program),
    )
}

fn what(service: ServiceKind) -> &'static str {
    match service {
        ServiceKind::Echo => "Echoed lines",
        ServiceKind::Block => "Blocks of a small file, from a peer",
        ServiceKind::Tracker => "Lists of a file's peers, from a tracker",
    }
}

fn figure(plot: Option<String>, caption: &str) -> String {
    plot.map_or_else(String::new, |plot| {
        format!(
            "<figure>\n{plot}<figcaption>{}</figcaption>\n</figure>\n",
            escape_markup(caption)
        )
    })
}

fn section(id: &str, title: &str, body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    format!(
        "<section id=\"{id}\">\n<h2>{}</h2>\n{body}</section>\n",
        escape_markup(title)
    )
}

fn throughput(report: &Report) -> String {
    let plots = figure(
        plots::throughput(report, Mode::PerRequest),
        "Connections per second, each of one request. Vertical lines reach from the slowest round to the fastest.",
    ) + &figure(
        plots::throughput(report, Mode::Persistent),
        "Requests per second on connections that stay open. A model under which clients starve has no point.",
    );
    section("throughput", "Throughput over clients", &pair(&plots))
}

fn pair(figures: &str) -> String {
    if figures.is_empty() {
        String::new()
    } else {
        format!("<div class=\"pair\">\n{figures}</div>\n")
    }
}

fn latency(report: &Report) -> String {
    let caption = "The filled dot is the median; the rings are the 99th and the 99.9th percentile.";
    let plots = figure(
        plots::latency(report, Mode::PerRequest),
        &format!("A request with the connection that it takes. {caption}"),
    ) + &figure(
        plots::latency(report, Mode::Persistent),
        &format!("A request on an open connection. {caption}"),
    );
    section("latency", "Latency", &pair(&plots))
}

fn memory(report: &Report) -> String {
    let plot = figure(
        plots::memory(report),
        "What an idle connection adds to the proportional shares (PSS) of all processes of the server. \
         The pages of files, which the generator shares, are not in it, nor is the kernel's own memory.",
    );
    section("memory", "Memory per connection", &plot)
}

fn creation(report: &Report) -> String {
    let plot = figure(
        plots::creation(report),
        "To create a flow of control that does nothing, and to wait for its end: time, and cycles of the time-stamp \
         counter. The red marks are the textbook's figures.",
    );
    section("creation", "Cost of a flow of control", &plot)
}

fn isolation(report: &Report) -> String {
    let rows: String = report
        .isolation
        .iter()
        .map(|isolation| {
            let lost = isolation.others().saturating_sub(isolation.survivors);
            format!(
                "<tr><th scope=\"row\">{}</th><td class=\"dots\"><span class=\"good\">{}</span><span class=\"bad\">{}</span></td><td class=\"text\">{}</td></tr>\n",
                escape_markup(&isolation.model),
                "●".repeat(isolation.survivors),
                "○".repeat(lost),
                escape_markup(&crash_in_words(isolation))
            )
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let table = format!(
        "<p>While 16 clients are connected, the handler of one of them dies of a segmentation fault.</p>\n\
         <div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">model</th><th scope=\"col\" class=\"text\">the other 15</th>\
         <th scope=\"col\" class=\"text\">what is left</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    );
    section("isolation", "What a crash takes with it", &table)
}

fn claims(report: &Report) -> String {
    let rows: String = report
        .claims
        .iter()
        .map(|claim| {
            let verdict = claim.verdict.describe();
            format!(
                "<li><span class=\"verdict {}\">{verdict}</span><div><strong>{}</strong><p>{}</p></div></li>\n",
                verdict.replace(' ', "-"),
                escape_markup(claim.statement),
                escape_markup(&claim.measured)
            )
        })
        .collect();
    section(
        "claims",
        "What the textbook says, and what was measured here",
        &format!("<ul class=\"claims\">\n{rows}</ul>\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::sample::report;

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let page = render(&report());
        for word in ["http://", "https://", "<script", "url(", "@import", "src="] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn the_page_has_every_plot_and_every_table() {
        let page = render(&report());
        for id in [
            "plot-connections",
            "plot-requests",
            "plot-latency-connection",
            "plot-latency-request",
            "plot-memory",
            "plot-creation",
        ] {
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
        assert_eq!(
            page.matches("<table>").count(),
            1 + report().loads().len() + 1 + 1 + 1
        );
        assert!(page.contains("starved: 15 clients"));
    }

    #[test]
    fn text_is_escaped_and_every_element_is_closed() {
        let page = render(&report());
        assert!(page.contains("Threads &lt;are&gt; cheaper") && page.contains("2 &amp; 3"));
        for element in [
            "section", "table", "figure", "svg", "div", "ul", "tr", "td", "text",
        ] {
            let opened = page.matches(&format!("<{element}>")).count()
                + page.matches(&format!("<{element} ")).count();
            assert_eq!(
                opened,
                page.matches(&format!("</{element}>")).count(),
                "{element}"
            );
        }
    }
}
