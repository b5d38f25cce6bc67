//! The text form of OpenMetrics. Knows no counter.

use std::fmt::Write;

/// A page of metrics that is being written.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// What the values of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They only grow.
    Counter,
    /// They are what is there now.
    Gauge,
}

impl Page {
    /// Adds a family: samples of one name, each with its label if there are several.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str, samples: &[Sample]) {
        let (kind, suffix) = match kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
        };
        self.0 += &format!("# TYPE {name} {kind}\n# HELP {name} {help}\n");
        for Sample { label, value } in samples {
            let labels = label.as_ref().map_or(String::new(), |(key, value)| {
                format!("{{{key}=\"{}\"}}", value.replace('\\', r"\\").replace('"', "\\\""))
            });
            writeln!(self.0, "{name}{suffix}{labels} {value}").expect("strings take everything");
        }
    }

    /// The page as it is sent.
    pub(super) fn end(self) -> String {
        self.0 + "# EOF\n"
    }
}

/// A value of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    label: Option<(&'static str, String)>,
    value: u64,
}

impl Sample {
    /// The only one of its family.
    pub(super) fn only(value: u64) -> [Self; 1] {
        [Self { label: None, value }]
    }

    /// One of several; the label has neither line breaks nor other control characters.
    pub(super) fn of(key: &'static str, name: impl Into<String>, value: u64) -> Self {
        Self { label: Some((key, name.into())), value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_with_their_samples_and_an_end() {
        let mut page = Page::default();
        page.family("a", Kind::Counter, "Of a.", &Sample::only(1));
        let samples = [Sample::of("export", r#"x"\"#, 2), Sample::of("export", "", 3)];
        page.family("b_bytes", Kind::Gauge, "Of b.", &samples);
        let text = "# TYPE a counter\n# HELP a Of a.\na_total 1\n\
                    # TYPE b_bytes gauge\n# HELP b_bytes Of b.\n\
                    b_bytes{export=\"x\\\"\\\\\"} 2\nb_bytes{export=\"\"} 3\n# EOF\n";
        assert_eq!(page.end(), text);
    }
}
