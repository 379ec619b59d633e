//! Path normalisation (Envoy: `normalize_path`, `merge_slashes`,
//! `path_with_escaped_slashes_action`; RFC 3986 section 6.2.2).

use std::borrow::Cow;

use crate::model::http::{EscapedSlashes, PathOptions};

/// What becomes of a request target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalized<'a> {
    /// Go on with this.
    Path(Cow<'a, str>),
    /// Answer 307 with this location.
    Redirect(String),
    /// Answer 400.
    Reject,
}

/// Apply the connection manager's path options to a request target.
pub fn normalize(target: &str, options: PathOptions) -> Normalized<'_> {
    if options == PathOptions::default() {
        return Normalized::Path(Cow::Borrowed(target));
    }
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    let mut path = Cow::Borrowed(path);
    let mut redirect = false;
    if options.escaped_slashes != EscapedSlashes::Keep && has_escaped_slash(&path) {
        match options.escaped_slashes {
            EscapedSlashes::Reject => return Normalized::Reject,
            EscapedSlashes::UnescapeAndRedirect => redirect = true,
            EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
        }
        path = Cow::Owned(unescape_slashes(&path));
    }
    if options.normalize {
        match remove_dots(&path) {
            Some(clean) => path = Cow::Owned(clean),
            None => return Normalized::Reject,
        }
    }
    if options.merge_slashes && path.contains("//") {
        path = Cow::Owned(merge_slashes(&path));
    }
    let whole = if query.is_empty() { path } else { Cow::Owned(format!("{path}{query}")) };
    if redirect { Normalized::Redirect(whole.into_owned()) } else { Normalized::Path(whole) }
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(is_escaped_slash)
}

fn is_escaped_slash(window: &[u8]) -> bool {
    window.eq_ignore_ascii_case(b"%2f") || window.eq_ignore_ascii_case(b"%5c")
}

fn unescape_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        match escape.get(..3) {
            Some(three) if three.eq_ignore_ascii_case("%2f") => out.push('/'),
            Some(three) if three.eq_ignore_ascii_case("%5c") => out.push('\\'),
            _ => {
                out.push('%');
                rest = escape.get(1..).unwrap_or("");
                continue;
            }
        }
        rest = escape.get(3..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

/// Dot segments out, `\` as `/`, unreserved escapes decoded. None: the path leaves the root, or is
/// no absolute path.
fn remove_dots(path: &str) -> Option<String> {
    if !path.starts_with(['/', '\\']) {
        return None;
    }
    let path = decode_unreserved(&path.replace('\\', "/"));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    let mut trailing = false;
    while let Some(segment) = segments.next() {
        trailing = segments.peek().is_none() && matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop()?;
            }
            other => kept.push(other),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if trailing || kept.is_empty() {
        out.push('/');
    }
    Some(out)
}

/// `%7E` and its like as the characters that they stand for (RFC 3986 section 6.2.2.2). Where that would complete another
/// escape, the `%` of that one is `%25`, as in Envoy: whoever decodes after us must not find what we did not see.
fn decode_unreserved(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    // Where a `%` stands that begins no escape.
    let mut stray = Vec::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let hex = escape.get(1..3).filter(|hex| is_hex(hex.as_bytes()));
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).map(char::from);
        match code {
            Some(c) if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~') => {
                out.push(c);
                rest = escape.get(3..).unwrap_or("");
                continue;
            }
            Some(_) => {}
            None => stray.push(out.len()),
        }
        out.push('%');
        rest = escape.get(1..).unwrap_or("");
    }
    out.push_str(rest);
    for at in stray.into_iter().rev() {
        if out.as_bytes().get(at + 1..at + 3).is_some_and(is_hex) {
            out.insert_str(at + 1, "25");
        }
    }
    out
}

fn is_hex(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_hexdigit)
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> PathOptions {
        PathOptions {
            normalize: true,
            merge_slashes: true,
            escaped_slashes: EscapedSlashes::UnescapeAndForward,
        }
    }

    fn clean(target: &str) -> Option<String> {
        match normalize(target, all()) {
            Normalized::Path(path) => Some(path.into_owned()),
            _ => None,
        }
    }

    #[test]
    fn paths_are_normalised() {
        for (target, want) in [
            ("/a/./b/../c?x=/../", "/a/c?x=/../"),
            ("/a//b", "/a/b"),
            ("/a%2Fb%5cc", "/a/b/c"),
            ("/%7Euser/%41", "/~user/A"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/", "/"),
            ("/a%20b", "/a%20b"),
            // What decoding would complete, as Envoy 1.39 has it.
            ("/%%32e%%32e/b", "/%252e%252e/b"),
            ("/a%4%3144F", "/a%254144F"),
            ("/%2%35", "/%2525"),
            ("/a%2%46b", "/a%252Fb"),
            ("/%%35c", "/%255c"),
            ("/a%zz%", "/a%zz%"),
            ("/%%41", "/%A"),
        ] {
            assert_eq!(clean(target).as_deref(), Some(want), "{target}");
        }
        assert_eq!(clean("/../etc"), None);
        assert_eq!(clean("/%2e%2e/etc"), None);
    }

    #[test]
    fn escaped_slashes_are_kept_refused_or_redirected() {
        let with = |escaped_slashes| PathOptions { escaped_slashes, ..PathOptions::default() };
        let redirect = with(EscapedSlashes::UnescapeAndRedirect);
        assert_eq!(normalize("/a%2fb?q", redirect), Normalized::Redirect("/a/b?q".into()));
        assert_eq!(normalize("/a%2fb", with(EscapedSlashes::Reject)), Normalized::Reject);
        let kept = normalize("/a%2fb", PathOptions::default());
        assert_eq!(kept, Normalized::Path("/a%2fb".into()));
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing(target in "/[a-c./%2Ff35e\\\\?=]{0,24}") {
            if let Some(once) = clean(&target) {
                proptest::prop_assert_eq!(clean(&once), Some(once));
            }
        }
    }
}
