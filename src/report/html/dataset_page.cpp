// The page of `llm-fp8 data`. Every text of the data set goes through escape_html.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "report/dataset_view.h"
#include "report/html/html_text.h"
#include "report/html/texts.h"

namespace llmfp8 {
namespace {

std::string whole(std::int64_t value) { return whole_text(static_cast<double>(value)); }

std::string span_of(const DatasetView::Bar& bar) {
  return bar.from == bar.to ? whole(bar.from) : fmt::format("{}–{}", whole(bar.from), whole(bar.to));
}

std::string figures_html(const DatasetView& view) {
  std::string rows;
  for (const auto& figure : view.figures)
    rows += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape_html(figure.what), escape_html(figure.value));
  return rows;
}

// Bars from left to right in a box that grows with the page; the numbers stand in a table below.
std::string histogram_svg(const DatasetView& view) {
  constexpr double kWidth = 720, kHeight = 200, kBottom = 24, kTop = 18;
  std::int64_t most = 1;
  for (const auto& bar : view.bars) most = std::max(most, bar.rows);
  const double step = kWidth / static_cast<double>(view.bars.size());
  std::string marks;
  const std::size_t every = (view.bars.size() + 7) / 8;
  for (std::size_t i = 0; i < view.bars.size(); ++i) {
    const auto& bar = view.bars[i];
    const double x = step * static_cast<double>(i);
    const auto height = [&](std::int64_t rows) {
      return rows == 0 ? 0.0 : std::max(1.5, (kHeight - kBottom - kTop) * static_cast<double>(rows) / static_cast<double>(most));
    };
    const double all = height(bar.rows), cut = std::min(all, height(bar.cut_rows));
    marks += fmt::format("<g><title>{} tokens: {} rows{}</title>", span_of(bar), whole(bar.rows),
                         bar.cut_rows > 0 ? fmt::format(", {} of them cut", whole(bar.cut_rows)) : "");
    marks += fmt::format("<rect class=\"kept\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", x + step * 0.08,
                         kHeight - kBottom - all + cut, step * 0.84, all - cut);
    if (cut > 0)
      marks += fmt::format("<rect class=\"cut\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", x + step * 0.08,
                           kHeight - kBottom - all, step * 0.84, cut);
    marks += "</g>\n";
    if (i % every == 0) marks += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x + step * 0.08, kHeight - 7, whole(bar.from));
  }
  marks += fmt::format("<text x=\"0\" y=\"12\">{} rows</text>", whole(most));
  return fmt::format(
      "<svg viewBox=\"0 0 {0} {1}\" role=\"img\" aria-label=\"Rows by length in tokens; the numbers follow as a table\">"
      "<line x1=\"0\" x2=\"{0}\" y1=\"{2}\" y2=\"{2}\"/>{3}</svg>",
      kWidth, kHeight, kHeight - kBottom, marks);
}

std::string histogram_html(const DatasetView& view) {
  if (view.bars.empty()) return "<p class=\"note\">No row can be used.</p>";
  std::string rows;
  bool any_cut = false;
  for (const auto& bar : view.bars) {
    rows += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>\n", span_of(bar), whole(bar.rows), whole(bar.cut_rows));
    any_cut = any_cut || bar.cut_rows > 0;
  }
  return fmt::format(
      "<p class=\"note\">Tokens of a row, before the cut{}.</p>\n<figure class=\"histogram\">{}</figure>\n"
      "<details><summary>Numbers of the lengths</summary><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Numbers of the "
      "lengths\"><table class=\"numbers\"><thead><tr><th scope=\"col\">tokens</th><th scope=\"col\">rows</th><th scope=\"col\">of them "
      "cut</th></tr></thead><tbody>\n{}</tbody></table></div></details>",
      any_cut ? fmt::format(" at {}; what is cut stands out", whole(view.max_seq_length)) : "", histogram_svg(view), rows);
}

std::string token_html(const ShownToken& token) {
  return fmt::format("<span class=\"t{}{}\" title=\"{}\">{}</span>", token.is_learnt ? "" : " m", token.is_special ? " s" : "",
                     fmt::format("{}", fmt::join(token.ids, " ")), escape_html(token.text));
}

// Runs of one kind stand in one element, so that a screen reader hears which it is.
std::string example_html(const DatasetView::Example& example) {
  std::string text;
  for (std::size_t t = 0; t < example.tokens.size(); ++t) {
    const bool begins = t == 0 || example.tokens[t].is_learnt != example.tokens[t - 1].is_learnt;
    if (begins && t > 0) text += "</span>";
    if (begins)
      text += example.tokens[t].is_learnt ? "<span><span class=\"unseen\">[learnt:] </span>" : "<span><span class=\"unseen\">[not learnt:] </span>";
    text += token_html(example.tokens[t]);
  }
  if (!example.tokens.empty()) text = fmt::format("<pre class=\"row\" tabindex=\"0\" aria-labelledby=\"row-{}\">{}</span></pre>", example.row, text);
  return fmt::format("<article><h3 id=\"row-{0}\">Row {1} <small>{2}</small></h3>{3}</article>\n", example.row, whole(example.row),
                     escape_html(example.remark), text);
}

}  // namespace

std::string dataset_page(const DatasetView& view, const DatasetPageOptions& options) {
  std::string examples;
  for (const auto& example : view.examples) examples += example_html(example);
  if (examples.empty()) examples = "<p class=\"note\">No row was asked for.</p>";
  std::string style(kPageStyle);
  style += kDatasetStyle;
  return fill_template(kDatasetTemplate, {{"title", escape_html(view.title)},
                                          {"style", style},
                                          {"subtitle", fmt::format("<span>{}</span> <span>llm-fp8 {}, {}</span>", escape_html(view.subtitle),
                                                                   escape_html(options.version), utc_text(options.made))},
                                          {"figures", figures_html(view)},
                                          {"histogram", histogram_html(view)},
                                          {"examples", examples}});
}

}  // namespace llmfp8
