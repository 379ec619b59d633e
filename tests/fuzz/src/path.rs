//! Path normalisation: what comes out must stay as it is when it goes in again.

use pillion_proxy::http::path::{Normalized, normalize};
use pillion_proxy::model::http::{EscapedSlashes, PathOptions};

pub(super) fn target(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let Ok(target) = std::str::from_utf8(rest) else { return };
    let options = PathOptions {
        normalize: choice & 1 != 0,
        merge_slashes: choice & 2 != 0,
        escaped_slashes: match (choice >> 2) & 3 {
            0 => EscapedSlashes::Keep,
            1 => EscapedSlashes::Reject,
            2 => EscapedSlashes::UnescapeAndRedirect,
            _ => EscapedSlashes::UnescapeAndForward,
        },
    };
    // What a request line or `:path` may hold: no space, no control character.
    if !target.starts_with('/') || target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return;
    }
    match normalize(target, options) {
        Normalized::Path(path) => holds(&path, options),
        Normalized::Redirect(location) => {
            assert!(location.starts_with('/'), "{target:?} leads off the site: {location:?}");
        }
        Normalized::Reject => {}
    }
}

fn holds(path: &str, options: PathOptions) {
    let again = normalize(path, options);
    assert_eq!(again, Normalized::Path(path.into()), "{path:?} is normal already");
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    if options.normalize {
        let dots = |segment: &str| segment == ".." || segment == ".";
        assert!(!path.split('/').any(dots), "dots are left in {path:?}");
    }
    if options.merge_slashes {
        assert!(!path.contains("//"), "double slashes are left in {path:?}");
    }
}
