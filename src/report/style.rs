//! Colours on a terminal.

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Escape sequences are written.
    pub colour: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Headings, names.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Added, fine.
    #[must_use]
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Removed, broken.
    #[must_use]
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Changed, look here.
    #[must_use]
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Less important.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A unified diff, line by line.
    #[must_use]
    pub fn diff(self, text: &str) -> String {
        let mut out = String::new();
        for line in text.lines() {
            let painted = match line.as_bytes() {
                [b'-', b'-', b'-', ..] | [b'+', b'+', b'+', ..] => self.bold(line),
                [b'@', ..] => self.dim(line),
                [b'+', ..] => self.green(line),
                [b'-', ..] => self.red(line),
                _ => line.to_owned(),
            };
            out.push_str("    ");
            out.push_str(&painted);
            out.push('\n');
        }
        out
    }
}
