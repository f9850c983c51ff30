//! Tables: names to the left, figures to the right, wide ones in a box of their own that scrolls.

use super::words::escape;

/// A table that is being filled.
pub(super) struct Table {
    label: String,
    /// How many columns hold texts, from the left.
    texts: usize,
    head: String,
    rows: String,
}

impl Table {
    /// A table called `label` for those who hear the page; its first `texts` columns hold texts.
    pub(super) fn new(label: &str, texts: usize, head: &[&str]) -> Self {
        let cell = |(place, name): (usize, &&str)| {
            let class = if place < texts { "" } else { " class=\"n\"" };
            format!("<th scope=\"col\"{class}>{}</th>", escape(name))
        };
        let head = head.iter().enumerate().map(cell).collect();
        Self { label: label.to_owned(), texts, head, rows: String::new() }
    }

    /// The same with a first column for the run's letter, if pages of several runs need one.
    pub(super) fn of_runs(label: &str, is_of_several: bool, texts: usize, head: &[&str]) -> Self {
        if is_of_several {
            Self::new(label, texts + 1, &[&["Run"], head].concat())
        } else {
            Self::new(label, texts, head)
        }
    }

    /// Adds a row; cells are texts, and are escaped.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cell = |(place, text): (usize, String)| match place {
            0 => format!("<th scope=\"row\">{}</th>", escape(&text)),
            place if place < self.texts => format!("<td>{}</td>", escape(&text)),
            _ => format!("<td class=\"n\">{}</td>", escape(&text)),
        };
        let cells: String = cells.into_iter().enumerate().map(cell).collect();
        self.rows.push_str(&format!("<tr>{cells}</tr>"));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn html(&self) -> String {
        let Self { label, head, rows, .. } = self;
        format!(
            "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table><thead><tr>{head}</tr></thead>\
             <tbody>{rows}</tbody></table></div>",
            escape(label)
        )
    }

    /// A section with a heading and the table; nothing if the table is empty.
    pub(super) fn section(&self, text: &str) -> String {
        if self.is_empty() {
            return String::new();
        }
        let (title, table) = (escape(&self.label), self.html());
        let text = if text.is_empty() { String::new() } else { format!("<p>{}</p>", escape(text)) };
        format!("<section class=\"card\"><h2>{title}</h2>{text}{table}</section>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_to_the_right_of_texts() {
        let mut table = Table::of_runs("Runs", true, 1, &["Name", "Rate"]);
        table.row(["A", "<x>", "7/s"].map(str::to_owned));
        let html = table.section("");
        assert!(html.contains("<th scope=\"row\">A</th><td>&lt;x&gt;</td><td class=\"n\">7/s</td>"), "{html}");
    }

    #[test]
    fn an_empty_table_has_no_section() {
        assert_eq!(Table::new("Errors", 1, &["Kind"]).section("What failed"), "");
    }
}
