//! Contexts by the letter of W3C Trace Context, and B3.

use super::*;

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn with(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn contexts_are_read_by_the_letter_of_the_specification() {
    let context = TraceContext::extract(&with(&[("traceparent", GOOD)])).unwrap();
    assert_eq!(context.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert!(context.sampled);
    for (bad, why) in [
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "version ff"),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", "no trace id"),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "no span id"),
        ("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "upper case"),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1", "too short"),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", "too long"),
        ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x", "later, no dash"),
        ("", "empty"),
        ("junk", "something else"),
        ("00", "the version alone"),
        ("0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-001", "a short version"),
        ("FF-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "an upper-case version"),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "no flags"),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g", "flags that are no number"),
        ("00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01", "dashes elsewhere"),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-011", "a short span id"),
        ("00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01", "no dashes"),
        (" 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a space before it"),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01,", "a list"),
    ] {
        assert_eq!(TraceContext::extract(&with(&[("traceparent", bad)])), None, "{why}");
    }
    let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-what";
    assert!(TraceContext::extract(&with(&[("traceparent", later)])).is_some_and(|c| !c.sampled));
    let long =
        format!("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-{}", "x".repeat(4000));
    let long = with(&[("traceparent", long.leak() as &str)]);
    assert!(TraceContext::extract(&long).is_some_and(|c| c.sampled), "a long later version");
    let flags = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff";
    assert!(TraceContext::extract(&with(&[("traceparent", flags)])).is_some_and(|c| c.sampled));
    let other = [("traceparent", GOOD), ("traceparent", later)];
    assert_eq!(TraceContext::extract(&with(&other)), None, "two that differ");
    let twice = with(&[("traceparent", GOOD), ("traceparent", GOOD)]);
    assert_eq!(TraceContext::extract(&twice), None);
}

#[test]
fn state_travels_with_the_context() {
    let lines = [("traceparent", GOOD), ("tracestate", "a=1, b=2"), ("tracestate", "c=3")];
    let context = TraceContext::extract(&with(&lines)).unwrap();
    let mut headers = HeaderMap::new();
    context.child(1, true).inject(&mut headers);
    assert_eq!(headers["tracestate"], "a=1,b=2,c=3");
    let want = "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01";
    assert_eq!(headers["traceparent"], want);
    let many: Vec<String> = (0..33).map(|i| format!("k{i}=v")).collect();
    let lines = [("traceparent", GOOD), ("tracestate", many.join(",").leak() as &str)];
    assert_eq!(TraceContext::extract(&with(&lines)).unwrap().state, "");
}

#[test]
fn b3_is_read_in_both_forms() {
    let single = with(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")]);
    assert!(TraceContext::extract(&single).is_some_and(|c| c.sampled));
    let multi = with(&[
        ("x-b3-traceid", "64fe8b2a57d3eff7"),
        ("x-b3-spanid", "e457b5a2e4d86bd1"),
        ("x-b3-sampled", "0"),
    ]);
    let context = TraceContext::extract(&multi).unwrap();
    assert_eq!(context.trace_id.to_string(), "000000000000000064fe8b2a57d3eff7");
    assert!(!context.sampled);
    let mut onward = multi;
    context.child(7, true).inject(&mut onward);
    assert_eq!(onward["x-b3-spanid"], "0000000000000007");
    assert_eq!(onward["x-b3-sampled"], "1");
    assert!(onward.contains_key("traceparent"));
    let mut onward = single;
    TraceContext::extract(&onward).unwrap().child(7, false).inject(&mut onward);
    assert_eq!(onward["b3"], "80f198ee56343ba864fe8b2a57d3eff7-0000000000000007-0");
}

#[test]
fn broken_b3_is_no_context_and_traceparent_comes_first() {
    for (single, want) in [
        ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d", Some(true)),
        ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0", Some(false)),
        ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1", Some(false)),
        ("64fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90", Some(true)),
        ("0", None),
        ("", None),
        ("64fe8b2a57d3eff7", None),
        ("xyz-e457b5a2e4d86bd1-1", None),
        ("00000000000000000000000000000000-e457b5a2e4d86bd1-1", None),
        ("64fe8b2a57d3eff7-0000000000000000-1", None),
    ] {
        let sampled = TraceContext::extract(&with(&[("b3", single)])).map(|c| c.sampled);
        assert_eq!(sampled, want, "{single}");
    }
    let both = [("traceparent", GOOD), ("b3", "64fe8b2a57d3eff7-e457b5a2e4d86bd1-0")];
    let context = TraceContext::extract(&with(&both)).unwrap();
    assert_eq!(context.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    let debug = [
        ("x-b3-traceid", "64fe8b2a57d3eff7"),
        ("x-b3-spanid", "e457b5a2e4d86bd1"),
        ("x-b3-flags", "1"),
    ];
    assert!(TraceContext::extract(&with(&debug)).is_some_and(|c| c.sampled));
    assert_eq!(TraceContext::extract(&with(&debug[..1])), None, "a trace without a span");
}

#[test]
fn a_state_with_something_wrong_is_dropped_as_a_whole() {
    let long = "k".repeat(257) + "=v";
    let wide = "k=".to_owned() + &"v".repeat(257);
    // 32 members of the largest size, which is far more than the 512 characters that must be passed on.
    let member = |at: usize| format!("{at:0>256}={}", "v".repeat(256));
    let full = (0..32).map(member).collect::<Vec<_>>().join(",");
    for (state, want) in [
        ("a=1,b=2", "a=1,b=2"),
        ("t@sys=1, rojo=00f067aa0ba902b7", "t@sys=1,rojo=00f067aa0ba902b7"),
        ("a=1,,b=2,", "a=1,b=2"),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a=", ""),
        ("a", ""),
        ("a=x=y", ""),
        ("t@much-too-long-a-system=1", ""),
        (long.as_str(), ""),
        (wide.as_str(), ""),
        (full.as_str(), full.as_str()),
        ("a=1;b=2", ""),
        ("a=1=2", ""),
        ("a b=1", ""),
        ("1a=1", "1a=1"),
        ("@s=1", ""),
        ("t@=1", ""),
        ("a@b@c=1", ""),
        (",", ""),
        ("", ""),
    ] {
        let lines = [("traceparent", GOOD), ("tracestate", state)];
        assert_eq!(TraceContext::extract(&with(&lines)).unwrap().state, want, "{state}");
    }
}
