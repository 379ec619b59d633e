//! Request targets: the authority and the two forms that HTTP/1 and HTTP/2 want.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Uri};

/// The authority of a request: from its target, else from `host`. Empty where there is none.
pub fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    }
}

/// Path and query of a request target; `*` for `OPTIONS *`, empty for `CONNECT`.
pub fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("", PathAndQuery::as_str)
}

/// Replace the authority.
pub fn set_authority<B>(request: &mut Request<B>, authority: &HeaderValue) {
    if request.uri().authority().is_some()
        && let Ok(authority) = Authority::try_from(authority.as_bytes())
    {
        let mut parts = request.uri().clone().into_parts();
        parts.authority = Some(authority);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
            return;
        }
    }
    request.headers_mut().insert(HOST, authority.clone());
}

/// Replace path and query. False: it is no valid path.
pub fn set_path<B>(request: &mut Request<B>, path: &str) -> bool {
    let Ok(path) = PathAndQuery::try_from(path) else { return false };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path);
    match Uri::from_parts(parts) {
        Ok(uri) => {
            *request.uri_mut() = uri;
            true
        }
        Err(_) => false,
    }
}

/// For an HTTP/1 connection: the path alone, and the authority in `host` (RFC 9112 section 3.2.1).
pub fn to_origin_form<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority().cloned() else { return };
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// For an HTTP/2 connection: scheme and authority in the target, no `host` (RFC 9113 section 8.3.1).
pub fn to_absolute_form<B>(request: &mut Request<B>, scheme: &Scheme) {
    let host = request.headers_mut().remove(HOST);
    if request.uri().authority().is_some() && request.uri().scheme().is_some() {
        return;
    }
    let mut parts = request.uri().clone().into_parts();
    if parts.authority.is_none() {
        parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    }
    if parts.authority.is_none() {
        return;
    }
    parts.scheme = Some(scheme.clone());
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_keeps_its_meaning_from_one_form_to_the_other() {
        let mut request = Request::get("/a?b").header(HOST, "shop:80").body(()).unwrap();
        assert_eq!(authority(request.uri(), request.headers()), "shop:80");
        to_absolute_form(&mut request, &Scheme::HTTP);
        assert_eq!(request.uri().to_string(), "http://shop:80/a?b");
        assert!(!request.headers().contains_key(HOST));
        set_authority(&mut request, &HeaderValue::from_static("cart"));
        assert!(set_path(&mut request, "/z"));
        to_origin_form(&mut request);
        assert_eq!(request.uri().to_string(), "/z");
        assert_eq!(request.headers()[HOST], "cart");
        assert!(!set_path(&mut request, "/ no"));
    }
}
