//! The page and its parts other than charts. In: words and figures. Out: HTML, escaped by the template library.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{Bars, Lines};

/// Dark and light as the reader's browser has it; charts keep their white ground.
const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 16px/1.5 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; border-bottom: 1px solid #8886; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
figure { margin: 1rem 0; }
svg { max-width: 100%; height: auto; }";

/// A whole page.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    paragraphs: Vec<String>,
    sections: Vec<Section>,
}

impl Page {
    /// An empty page.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            paragraphs: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// Adds a paragraph that stands above all sections.
    #[must_use]
    pub fn paragraph(mut self, text: impl Into<String>) -> Self {
        self.paragraphs.push(text.into());
        self
    }

    /// Adds a section at the end.
    #[must_use]
    pub fn section(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    /// The page as the content of a file.
    pub fn html(&self) -> String {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { (self.title) }
                    @for text in &self.paragraphs { p { (text) } }
                    @for section in &self.sections { (section.html()) }
                }
            }
        }
        .into_string()
    }
}

/// A heading and what stands below it, in the order in which it was added.
#[derive(Debug, Clone)]
pub struct Section {
    heading: String,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
enum Block {
    Paragraph(String),
    Table(Table),
    /// Title, and the drawing as SVG.
    Chart(String, String),
}

impl Section {
    /// An empty section.
    pub fn new(heading: impl Into<String>) -> Self {
        Self {
            heading: heading.into(),
            blocks: Vec::new(),
        }
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn paragraph(self, text: impl Into<String>) -> Self {
        self.block(Block::Paragraph(text.into()))
    }

    /// Adds a table.
    #[must_use]
    pub fn table(self, table: Table) -> Self {
        self.block(Block::Table(table))
    }

    /// Adds a bar chart.
    #[must_use]
    pub fn bars(self, chart: &Bars) -> Self {
        self.block(Block::Chart(chart.title().to_owned(), chart.svg()))
    }

    /// Adds a line chart.
    #[must_use]
    pub fn lines(self, chart: &Lines) -> Self {
        self.block(Block::Chart(chart.title().to_owned(), chart.svg()))
    }

    fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }

    fn html(&self) -> Markup {
        html! {
            section {
                h2 { (self.heading) }
                @for block in &self.blocks {
                    @match block {
                        Block::Paragraph(text) => { p { (text) } }
                        Block::Table(table) => { (table.html()) }
                        // Escaped by the library that drew it; a test of the charts holds it to that.
                        Block::Chart(title, svg) => {
                            figure role="img" aria-label=(title) { (PreEscaped(svg)) }
                        }
                    }
                }
            }
        }
    }
}

/// Rows of words or figures below a header.
#[derive(Debug, Clone, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows. The first column holds names, the others figures.
    pub fn new<Text: Into<String>>(header: impl IntoIterator<Item = Text>) -> Self {
        Self {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row at the end.
    #[must_use]
    pub fn row<Text: Into<String>>(mut self, cells: impl IntoIterator<Item = Text>) -> Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    fn html(&self) -> Markup {
        html! {
            div.wide {
                table {
                    thead { tr { @for cell in &self.header { th { (cell) } } } }
                    tbody {
                        @for row in &self.rows { tr { @for cell in row { td { (cell) } } } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Across, Span};

    const HOSTILE: &str = "<script>alert('a' & \"b\")</script>";

    #[test]
    fn no_word_on_the_page_becomes_markup() {
        let span = Span {
            median: 2.0,
            low: 1.0,
            high: 3.0,
        };
        let mut bars = Bars::new(HOSTILE, HOSTILE);
        bars.add(HOSTILE, HOSTILE, span);
        let mut lines = Lines::new(HOSTILE, Across::Plain(HOSTILE.to_owned()), HOSTILE);
        lines.add(HOSTILE, vec![(1.0, 1.0), (2.0, 2.0)]);
        let page = Page::new(HOSTILE).paragraph(HOSTILE).section(
            Section::new(HOSTILE)
                .paragraph(HOSTILE)
                .table(Table::new([HOSTILE]).row([HOSTILE]))
                .bars(&bars)
                .lines(&lines),
        );
        let html = page.html();
        assert!(!html.contains("<script"), "{html}");
        assert!(!html.contains("\"b\""), "{html}");
        // Title twice, two paragraphs, a heading, two cells, two labels of figures, four texts in each chart.
        assert_eq!(html.matches("&lt;script&gt;").count(), 17, "{html}");
    }

    #[test]
    fn parts_stand_in_the_order_in_which_they_were_added() {
        let html = Page::new("title")
            .paragraph("lead")
            .section(
                Section::new("first")
                    .table(Table::new(["name", "figure"]).row(["one", "1"]))
                    .paragraph("below the table"),
            )
            .section(Section::new("second"))
            .html();
        let places: Vec<usize> = [
            "lead",
            "<h2>first",
            "<th>figure",
            "<td>one",
            "below",
            "<h2>second",
        ]
        .iter()
        .map(|word| html.find(word).unwrap())
        .collect();
        assert!(places.is_sorted(), "{places:?} in {html}");
        assert!(html.contains("<td>1</td>"), "{html}");
    }

    #[test]
    fn the_page_loads_nothing() {
        let mut bars = Bars::new("title", "unit");
        bars.add("group", "name", Span::from(1.0));
        let html = Page::new("title")
            .section(Section::new("heading").bars(&bars))
            .html();
        for word in ["src=", "href=", "url(", "@import", "<link"] {
            assert!(!html.contains(word), "{word} in {html}");
        }
    }
}
