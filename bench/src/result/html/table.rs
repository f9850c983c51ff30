//! Tables: names to the left, figures to the right, wide ones in a box of their own that scrolls.

use super::words::escape;

/// A table that is being filled.
pub(super) struct Table {
    label: String,
    names: Vec<String>,
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
        let names = head.iter().map(|name| escape(name)).collect();
        let head = head.iter().enumerate().map(cell).collect();
        Self { label: label.to_owned(), names, texts, head, rows: String::new() }
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
        let cell = |(place, text): (usize, String)| {
            let (name, text) = (self.names.get(place).map_or("", String::as_str), escape(&text));
            match place {
                0 => format!("<th scope=\"row\">{text}</th>"),
                // A phone shows rows as lists, and each name beside its value.
                place if place < self.texts => format!("<td data-name=\"{name}\">{text}</td>"),
                _ => format!("<td class=\"n\" data-name=\"{name}\">{text}</td>"),
            }
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

    /// A section with a heading and the table, whose rows are lists on a phone; nothing if the table is empty.
    pub(super) fn section(&self) -> String {
        self.section_of("card stack")
    }

    /// The same with a table that stays one on a phone.
    pub(super) fn wide_section(&self) -> String {
        self.section_of("card")
    }

    fn section_of(&self, class: &str) -> String {
        if self.is_empty() {
            return String::new();
        }
        format!("<section class=\"{class}\"><h2>{}</h2>{}</section>\n", escape(&self.label), self.html())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_to_the_right_of_texts() {
        let mut table = Table::of_runs("Runs", true, 1, &["Name", "Rate"]);
        table.row(["A", "<x>", "7/s"].map(str::to_owned));
        let html = table.section();
        assert!(
            html.contains("<th scope=\"row\">A</th><td data-name=\"Name\">&lt;x&gt;</td><td class=\"n\""),
            "{html}"
        );
    }

    #[test]
    fn an_empty_table_has_no_section() {
        assert_eq!(Table::new("Errors", 1, &["Kind"]).section(), "");
    }
}
