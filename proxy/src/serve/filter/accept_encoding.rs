//! Which of several compressors a client gets (RFC 9110 section 12.5.3; Envoy: compressor filter,
//! "How it works").

/// What came of `accept-encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    /// It likes this one best.
    Coding(&'a str),
    /// It takes any: the first.
    Wildcard(&'a str),
    /// It likes it best as it is.
    Identity,
    /// Nothing that we have, or nonsense.
    NotValid,
}

/// The best of `have` (with whether it is to be preferred among equals), in the order of the
/// filters.
pub(super) fn choose<'a>(accept: &str, have: &[(&'a str, bool)]) -> Choice<'a> {
    let asked: Vec<(&str, f32)> = accept.split(',').filter_map(one).collect();
    let refused = |coding: &str| asked.iter().any(|(name, q)| *name == coding && *q == 0.0);
    let have: Vec<_> = have.iter().filter(|(coding, _)| !refused(coding)).collect();
    if asked.is_empty() || have.is_empty() {
        return Choice::NotValid;
    }
    let mut best: Option<(f32, bool, Choice<'a>)> = None;
    for (name, q) in asked {
        let (choice, first) = match (name, have.iter().find(|(coding, _)| *coding == name)) {
            (_, Some((coding, first))) => (Choice::Coding(coding), *first),
            ("identity", None) => (Choice::Identity, false),
            ("*", None) => (Choice::Wildcard(have[0].0), false),
            _ => continue,
        };
        let better = match best {
            None => q > 0.0,
            Some((most, before, _)) => q > most || (q == most && first && !before),
        };
        if better {
            best = Some((q, first, choice));
        }
    }
    best.map_or(Choice::NotValid, |(_, _, choice)| choice)
}

/// `gzip;q=0.5`
fn one(token: &str) -> Option<(&str, f32)> {
    let mut parts = token.split(';');
    let name = parts.next()?.trim();
    let mut q = 1.0;
    for parameter in parts {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if key.trim().eq_ignore_ascii_case("q") {
            q = value.trim().parse().ok()?;
        }
    }
    (!name.is_empty()).then_some((name, q))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_decides_and_the_order_breaks_ties() {
        let both = [("gzip", false), ("br", false)];
        let choose = |accept| choose(accept, &both);
        assert_eq!(choose("br, gzip"), Choice::Coding("br"));
        assert_eq!(choose("gzip;q=0.5, br;q=0.4"), Choice::Coding("gzip"));
        assert_eq!(choose("*"), Choice::Wildcard("gzip"));
        assert_eq!(choose("gzip;q=0, *"), Choice::Wildcard("br"));
        assert_eq!(choose("identity, gzip;q=0.9"), Choice::Identity);
        assert_eq!(choose("deflate"), Choice::NotValid);
        assert_eq!(choose("gzip;q=0"), Choice::NotValid);
        assert_eq!(choose(""), Choice::NotValid);
        let preferred = [("gzip", false), ("br", true)];
        assert_eq!(super::choose("gzip, br", &preferred), Choice::Coding("br"));
    }
}
