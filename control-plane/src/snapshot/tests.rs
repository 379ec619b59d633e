use super::*;

#[test]
fn versions_follow_the_content_and_survive_the_round_trip() {
    let a = Resource::new(ResourceType::Cluster, "a", "one");
    let b = Resource::new(ResourceType::Cluster, "a", "two");
    assert_ne!(a.version, b.version);
    assert_eq!(a, Resource::new(ResourceType::Cluster, "a", "one"));
    assert_eq!(a.version.to_string().parse(), Ok(a.version));
    assert_eq!(a.version.to_string().len(), 16);
}

#[test]
fn the_version_of_a_set_depends_on_names_and_content() {
    let one = Resource::new(ResourceType::Cluster, "a", "one");
    let same_body = Resource::new(ResourceType::Cluster, "b", "one");
    assert_ne!(Version::of_all([&one]), Version::of_all([&same_body]));
    assert_ne!(Version::of_all([&one]), Version::of_all([&one, &same_body]));
    let both = Version::of_all([&same_body, &one]);
    assert_eq!(both, Version::of_all([&one, &same_body]));
    assert_eq!(both.without("b", same_body.version), Version::of_all([&one]));
}

#[test]
fn a_set_keeps_push_order_and_replaces_by_name() {
    let set: ResourceSet = [
        Resource::new(ResourceType::Route, "r", "1"),
        Resource::new(ResourceType::Cluster, "c", "1"),
        Resource::new(ResourceType::Cluster, "c", "2"),
    ]
    .into_iter()
    .collect();
    let names: Vec<&str> = set.iter().map(|r| &*r.name).collect();
    assert_eq!(names, ["c", "r"]);
    assert_eq!(set.get(ResourceType::Cluster, "c").unwrap().body, "2");
    assert_eq!(set.len(), 2);
}

fn set(of: &[(ResourceType, &str, &str)]) -> ResourceSet {
    let resource = |(kind, name, body): &(ResourceType, &str, &str)| {
        Resource::new(*kind, *name, (*body).to_owned())
    };
    of.iter().map(resource).collect()
}

#[test]
fn a_copy_has_its_own_in_place_of_what_it_shares() {
    use ResourceType::Cluster;
    let base = set(&[(Cluster, "a", "1"), (Cluster, "c", "1"), (Cluster, "d", "1")]);
    let mut on = base.clone();
    on.insert(Resource::new(Cluster, "b", "2"));
    on.insert(Resource::new(Cluster, "c", "2"));
    let all: Vec<_> = on.of_type(Cluster).map(|r| (&*r.name, &r.body[..])).collect();
    assert_eq!(all, [("a", &b"1"[..]), ("b", b"2"), ("c", b"2"), ("d", b"1")]);
    assert_eq!(on.get(Cluster, "c").unwrap().body, "2");
    assert_eq!(on.len(), 4);
    let flat =
        set(&[(Cluster, "a", "1"), (Cluster, "b", "2"), (Cluster, "c", "2"), (Cluster, "d", "1")]);
    assert_eq!(on, flat);
    assert!(on.diff(&flat).is_empty());
    assert_eq!(base.get(Cluster, "c").unwrap().body, "1");
}

#[test]
fn a_diff_names_what_changed_and_what_is_gone() {
    use ResourceType::{Cluster, Route};
    let older =
        set(&[(Cluster, "a", "1"), (Cluster, "b", "1"), (Cluster, "c", "1"), (Route, "r", "1")]);
    let newer =
        set(&[(Cluster, "b", "2"), (Cluster, "c", "1"), (Cluster, "d", "1"), (Route, "r", "1")]);
    let diff = older.diff(&newer);
    assert_eq!(diff.keys().collect::<Vec<_>>(), [&Cluster]);
    let changed: Vec<&str> = diff[&Cluster].changed.iter().map(|r| &*r.name).collect();
    assert_eq!(changed, ["b", "d"]);
    assert_eq!(diff[&Cluster].removed, ["a".into()]);
}

#[test]
fn a_diff_of_copies_sees_what_each_has_of_its_own() {
    use ResourceType::Cluster;
    let newer = set(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    let mut older = newer.clone();
    older.insert(Resource::new(Cluster, "a", "mine"));
    older.insert(Resource::new(Cluster, "x", "mine"));
    let diff = older.diff(&newer);
    assert_eq!(diff[&Cluster].changed[0].body, "1");
    assert_eq!(diff[&Cluster].removed, ["x".into()]);
}

#[test]
fn type_urls_are_found_again() {
    for kind in ResourceType::ALL {
        assert_eq!(ResourceType::from_type_url(kind.type_url()), Some(kind));
    }
    assert_eq!(ResourceType::from_type_url("type.googleapis.com/x.Y"), None);
}
