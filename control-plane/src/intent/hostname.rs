//! Host names of listeners and routes (Gateway API `Hostname`).

use super::decode::{At, Context, text};

/// A host name in lower case, or `*.` and one: every name below it, however deep.
pub(crate) fn hostname(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let name = text(cx, at)?.to_ascii_lowercase();
    let rest = name.strip_prefix("*.").unwrap_or(&name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let address = rest.parse::<std::net::Ipv4Addr>().is_ok();
    if rest.len() <= 253 && !address && rest.split('.').all(label) {
        return Some(name);
    }
    cx.expected(at, "a host name such as `shop.example.com` or `*.example.com`")
}

/// Whether every host that `name` stands for is one that `pattern` stands for.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix) || pattern == name,
        None => pattern == name,
    }
}

/// The hosts that both stand for: the more specific of the two. `None`: there are none.
pub(crate) fn intersection<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    if covers(one, other) {
        Some(other)
    } else if covers(other, one) {
        Some(one)
    } else {
        None
    }
}

/// Place of a name among those that stand for a host, larger is more specific: a whole name, then the longest
/// wildcard. `None` stands for every host.
pub(crate) fn specificity(name: Option<&str>) -> (bool, usize) {
    match name {
        None => (false, 0),
        Some(name) => (!name.starts_with('*'), name.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_meet_where_the_more_specific_one_says() {
        assert_eq!(intersection("*.shop.com", "a.shop.com"), Some("a.shop.com"));
        assert_eq!(intersection("a.b.shop.com", "*.shop.com"), Some("a.b.shop.com"));
        assert_eq!(intersection("*.shop.com", "*.eu.shop.com"), Some("*.eu.shop.com"));
        assert_eq!(intersection("*.shop.com", "*.shop.com"), Some("*.shop.com"));
        assert_eq!(intersection("*.shop.com", "shop.com"), None, "a wildcard stands for something");
        assert_eq!(intersection("a.shop.com", "b.shop.com"), None);
        assert_eq!(intersection("*.hop.com", "a.shop.com"), None);
    }

    #[test]
    fn whole_names_are_more_specific_than_wildcards_and_those_than_nothing() {
        let mut names = [None, Some("*.a.shop.com"), Some("x.com"), Some("*.shop.com")];
        names.sort_by_key(|name| std::cmp::Reverse(specificity(*name)));
        assert_eq!(names, [Some("x.com"), Some("*.a.shop.com"), Some("*.shop.com"), None]);
    }
}
