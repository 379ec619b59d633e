//! Where in a resource the translation stands, and what it refused so far.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

/// Something in a resource that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Path of the field, such as `virtual_hosts[0].routes[2].route.timeout`. Empty: the resource
    /// as a whole.
    pub field: String,
    /// Why, and what was expected.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.field, self.reason)
        }
    }
}

/// Everything that was refused in a resource.
pub(crate) type Sink = RefCell<Vec<Refused>>;

/// A place in a resource. Cheap: its text is only made when something is refused there.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
    sink: &'a Sink,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    pub(crate) fn root(sink: &'a Sink) -> Self {
        Self { parent: None, step: Step::Root, sink }
    }

    pub(crate) fn field<'b>(&'b self, name: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        At { parent: Some(self), step: Step::Field(name), sink: self.sink }
    }

    pub(crate) fn index<'b>(&'b self, index: usize) -> At<'b>
    where
        'a: 'b,
    {
        At { parent: Some(self), step: Step::Index(index), sink: self.sink }
    }

    pub(crate) fn key<'b>(&'b self, key: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        At { parent: Some(self), step: Step::Key(key), sink: self.sink }
    }

    /// Notes that what stands here is refused. Returns None, for use as a function's last word.
    pub(crate) fn refuse<T>(&self, reason: impl fmt::Display) -> Option<T> {
        let mut field = String::new();
        self.write(&mut field);
        let refused = Refused { field, reason: reason.to_string() };
        let mut sink = self.sink.borrow_mut();
        if !sink.contains(&refused) {
            sink.push(refused);
        }
        None
    }

    /// The value, or a refusal that it is missing.
    pub(crate) fn required<T>(&self, value: Option<T>) -> Option<T> {
        value.or_else(|| self.refuse("is missing"))
    }

    /// Refuses unless `fine`.
    pub(crate) fn expect(&self, fine: bool, reason: impl fmt::Display) -> Option<()> {
        if fine { Some(()) } else { self.refuse(reason) }
    }

    /// A duration. None where there is none; a negative one is refused.
    pub(crate) fn duration(&self, value: Option<prost_types::Duration>) -> Option<Duration> {
        let value = value?;
        match Duration::try_from(value) {
            Ok(duration) => Some(duration),
            Err(_) => self.refuse("is negative or out of range"),
        }
    }

    /// A duration of which zero means "no limit".
    pub(crate) fn limit(
        &self,
        value: Option<prost_types::Duration>,
        default: Option<Duration>,
    ) -> Option<Duration> {
        if value.is_none() {
            return default;
        }
        self.duration(value).filter(|duration| !duration.is_zero())
    }

    /// Each item of a list, translated; the bad ones are refused and left out.
    pub(crate) fn each<P, T>(
        &self,
        items: &[P],
        mut translate: impl FnMut(&At<'_>, &P) -> Option<T>,
    ) -> Vec<T> {
        // What is made stays for long: no more than is needed.
        let mut made = Vec::with_capacity(items.len());
        let items = items.iter().enumerate();
        made.extend(items.filter_map(|(i, item)| translate(&self.index(i), item)));
        made
    }

    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match self.step {
            Step::Root => {}
            Step::Field(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Step::Index(index) => {
                out.push_str(&format!("[{index}]"));
            }
            Step::Key(key) => {
                out.push_str(&format!("[{key}]"));
            }
        }
    }
}
