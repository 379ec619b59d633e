//! URI templates (Envoy: `uri_template` path match and rewrite), as regular expressions.

use std::fmt::Write;

/// Characters of a segment (RFC 3986 section 3.3, `=` besides).
const SEGMENT: &str = "[a-zA-Z0-9._~%!$&'()+,;:@=-]+";
/// Of any number of segments.
const SEGMENTS: &str = "[a-zA-Z0-9._~%!$&'()+,;:@=/-]*";
const LONGEST_NAME: usize = 16;
const MOST_NAMES: usize = 5;

/// The regular expression of a template such as `/shop/{kind}/{rest=**}`: `*` is one segment, `**`
/// any number of them, and may only be the last operator. Variables become groups of their name.
///
/// # Errors
/// The text is no template.
pub fn template_to_regex(template: &str) -> Result<String, String> {
    if !template.starts_with('/') {
        return Err("expected a template that begins with `/`".into());
    }
    let mut parser = Parser { out: String::from("^"), names: Vec::new(), ended: false };
    parser.pieces(template)?;
    parser.out.push('$');
    Ok(parser.out)
}

/// The replacement of a rewrite such as `/{kind}`, in the form of the regex crate, and the names in
/// it.
///
/// # Errors
/// The text is no rewrite.
pub fn rewrite_to_expansion(rewrite: &str) -> Result<(String, Vec<String>), String> {
    if !rewrite.starts_with('/') {
        return Err("expected a rewrite that begins with `/`".into());
    }
    let (mut out, mut names, mut rest) = (String::new(), Vec::new(), rewrite);
    while let Some((literal, after)) = rest.split_once('{') {
        literals(literal)?;
        out.push_str(&literal.replace('$', "$$"));
        let (name, after) = after.split_once('}').ok_or("a `{` has no `}`")?;
        check_name(name)?;
        let _ = write!(out, "${{{name}}}");
        names.push(name.to_owned());
        rest = after;
    }
    literals(rest)?;
    out.push_str(&rest.replace('$', "$$"));
    Ok((out, names))
}

struct Parser {
    out: String,
    names: Vec<String>,
    /// `**` was there: nothing but text may follow.
    ended: bool,
}

impl Parser {
    fn pieces(&mut self, mut text: &str) -> Result<(), String> {
        while let Some(first) = text.chars().next() {
            text = match first {
                '*' => self.stars(text)?,
                '{' => self.variable(text)?,
                _ => {
                    let end = text.find(['*', '{']).unwrap_or(text.len());
                    let (literal, rest) = text.split_at(end);
                    literals(literal)?;
                    self.out.push_str(&regex::escape(literal));
                    rest
                }
            };
        }
        Ok(())
    }

    fn stars<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        if self.ended {
            return Err("no operator may follow `**`".into());
        }
        if let Some(rest) = text.strip_prefix("**") {
            self.ended = true;
            self.out.push_str(SEGMENTS);
            return Ok(rest);
        }
        self.out.push_str(SEGMENT);
        Ok(text.get(1..).unwrap_or_default())
    }

    fn variable<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        let (inner, rest) = text
            .strip_prefix('{')
            .and_then(|text| text.split_once('}'))
            .ok_or("a `{` has no `}`")?;
        let (name, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
        check_name(name)?;
        if self.ended {
            return Err("no operator may follow `**`".into());
        }
        if self.names.iter().any(|known| known == name) {
            return Err(format!("the variable `{name}` stands twice"));
        }
        if self.names.len() == MOST_NAMES {
            return Err(format!("more than {MOST_NAMES} variables"));
        }
        if pattern.is_empty() || pattern.contains('{') {
            return Err(format!("the variable `{name}` has no pattern"));
        }
        self.names.push(name.to_owned());
        let _ = write!(self.out, "(?P<{name}>");
        self.pieces(pattern)?;
        self.out.push(')');
        Ok(rest)
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fine = name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    fine.then_some(()).ok_or_else(|| {
        format!(
            "`{name}` is no name: a letter, then letters, digits and `_`, {LONGEST_NAME} in all"
        )
    })
}

fn literals(text: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=/".contains(c);
    match text.chars().find(|c| !fine(*c)) {
        Some(c) => Err(format!("`{c}` may not stand in a template")),
        None if text.contains("//") => Err("`//` may not stand in a template".into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(template: &str, path: &str) -> bool {
        regex::Regex::new(&template_to_regex(template).unwrap()).unwrap().is_match(path)
    }

    #[test]
    fn stars_are_segments() {
        assert!(fits("/a/*/c", "/a/b/c"));
        assert!(!fits("/a/*/c", "/a//c"));
        assert!(!fits("/a/*/c", "/a/b/b/c"));
        assert!(fits("/a/**", "/a/"));
        assert!(fits("/a/**", "/a/b/c.d"));
        assert!(!fits("/a/**", "/b"));
        assert!(fits("/v/**.mpd", "/v/x/y.mpd"));
        assert!(fits("/{kind}/{rest=x/**}", "/a/x/b/c"));
        assert!(!fits("/{kind}.m4s", "/a"));
    }

    #[test]
    fn what_is_no_template_is_said() {
        for (bad, why) in [
            ("a", "begins with"),
            ("/{a", "no `}`"),
            ("/{1}", "is no name"),
            ("/**/*", "may follow"),
            ("/{a}/{a}", "twice"),
            ("/{a}{b}{c}{d}{e}{f}", "more than"),
            ("/a//b", "`//`"),
            ("/a?b", "`?`"),
            ("/{a=}", "no pattern"),
        ] {
            let error = template_to_regex(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn rewrites_put_what_was_matched_elsewhere() {
        let regex = regex::Regex::new(&template_to_regex("/{a}/{b=**}").unwrap()).unwrap();
        let (expansion, names) = rewrite_to_expansion("/x$/{b}/{a}").unwrap();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(regex.replace("/1/2/3", expansion.as_str()), "/x$/2/3/1");
        assert!(rewrite_to_expansion("x").is_err());
    }
}
