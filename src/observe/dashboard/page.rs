//! The document, and the headers of every answer.

use super::admitted;
use super::auth::Auth;
use crate::http::Response;
use crate::random;
use crate::server::Request;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
/// Concatenated, they form one module: helpers, pictures, the parts of the page, and the code that joins them.
const SCRIPTS: [&str; 6] = [
    include_str!("dom.js"),
    include_str!("charts.js"),
    include_str!("panels.js"),
    include_str!("traces.js"),
    include_str!("dialogs.js"),
    include_str!("main.js"),
];

/// Answers with the document, if `auth` admits the request.
pub(super) fn answer(auth: &Auth, request: &Request) -> Response {
    if let Err(refusal) = admitted(auth, request.head()) {
        return refusal;
    }
    match request.head().method() {
        "GET" | "HEAD" => document(),
        _ => guarded(Response::text(405, "method not allowed\n").header("Allow", "GET, HEAD")),
    }
}

/// Scripts and styles run only with a nonce of this one answer; scripts inside data never run.
fn document() -> Response {
    let nonce = random::uuid().simple().to_string();
    let page = PAGE.replace("{nonce}", &nonce).replace("{style}", STYLE).replace("{script}", &SCRIPTS.concat());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    );
    guarded(Response::html(page)).header("Content-Security-Policy", policy)
}

/// Adds headers that prevent caching, framing and content-type sniffing.
pub(super) fn guarded(response: Response) -> Response {
    response
        .header("Cache-Control", "no-store")
        .header("X-Content-Type-Options", "nosniff")
        .header("X-Frame-Options", "DENY")
        .header("Referrer-Policy", "no-referrer")
        .header("Cross-Origin-Opener-Policy", "same-origin")
        .header("Cross-Origin-Resource-Policy", "same-origin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_whole_and_needs_nothing_else() {
        let page = String::from_utf8(document().content().to_vec()).expect("UTF-8");
        for hole in ["{nonce}", "{style}", "{script}"] {
            assert!(!page.contains(hole), "{hole}");
        }
        for script in SCRIPTS {
            assert!(!script.contains("</script") && !script.contains("innerHTML"), "{script}");
        }
        for outside in ["src=\"http", "href=\"http", "@import", "url(http", " style=\"", " onclick="] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
