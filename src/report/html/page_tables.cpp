// The tables of the page: how the run went, what ran in which format, where memory and rows went, the configuration.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include <fmt/ranges.h>

#include "report/comparison.h"
#include "report/html/html_text.h"
#include "report/html/page.h"
#include "report/stability.h"

namespace llmfp8 {
namespace {

// A name that may be broken behind each underscore, where a phone has no room for it.
std::string breakable(std::string_view name) {
  std::string html;
  for (const char c : escape_html(name)) {
    html += c;
    if (c == '_') html += "<wbr>";
  }
  return html;
}

// A table of text; cells are escaped here. The first column names the row.
class HtmlTable {
 public:
  HtmlTable(std::string caption, std::vector<std::string> columns)
      : caption_(std::move(caption)), columns_(std::move(columns)) {}

  enum class Row { plain, differs };
  void add(std::string_view name, const std::vector<std::string>& cells, Row kind = Row::plain) {
    std::string row = fmt::format("<tr{}><th scope=\"row\">{}</th>", kind == Row::differs ? " class=\"differs\"" : "",
                                  breakable(name));
    for (const std::string& cell : cells) row += fmt::format("<td>{}</td>", escape_html(cell));
    rows_ += row + "</tr>\n";
  }
  bool empty() const { return rows_.empty(); }

  // "" without a row. kind: a class of page.css, "numbers" or "texts".
  std::string html(std::string_view kind) const {
    if (empty()) return "";
    std::string head = "<td></td>";
    for (const std::string& column : columns_) head += fmt::format("<th scope=\"col\">{}</th>", escape_html(column));
    return fmt::format(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table "
        "class=\"{1}\"><caption>{0}</caption>"
        "<thead><tr>{2}</tr></thead><tbody>{3}</tbody></table></div>\n",
        escape_html(caption_), kind, head, rows_);
  }

 private:
  std::string caption_;
  std::vector<std::string> columns_;
  std::string rows_;
};

using Runs = std::span<const RunRecord>;

std::vector<std::string> names_of(Runs runs) {
  std::vector<std::string> names;
  for (const RunRecord& run : runs) names.push_back(run.name);
  return names;
}

std::vector<std::string> each(Runs runs, const std::function<std::string(const RunRecord&)>& text) {
  std::vector<std::string> cells;
  for (const RunRecord& run : runs) cells.push_back(text(run));
  return cells;
}

std::string section(std::string_view id, std::string_view title, std::string_view note, const std::string& content) {
  if (content.empty()) return "";
  return fmt::format("<section aria-labelledby=\"{0}\"><h2 id=\"{0}\">{1}</h2>{2}{3}</section>\n", id, title,
                     note.empty() ? "" : fmt::format("<p class=\"note\">{}</p>", note), content);
}

double statistic(const RunRecord& run, const std::string& series, const std::string& name) {
  const auto of = run.stability.find(series);
  if (of == run.stability.end()) return kUnknown;
  const auto it = of->second.find(name);
  return it == of->second.end() ? kUnknown : it->second;
}

std::string spaced(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '_', ' ');
  return text;
}

std::string stability_section(Runs runs) {
  const std::vector<std::string> series = {"loss", "gradient_norm", "learning_rate"};
  const auto statistics = StabilityStatistics().entries();
  std::string tables;
  if (std::all_of(runs.begin(), runs.end(), [](const RunRecord& run) { return run.stability.empty(); })) return "";
  if (runs.size() == 1) {
    HtmlTable table("Stability", {"loss", "gradient norm", "learning rate"});
    for (const auto& [name, unused] : statistics) {
      std::vector<std::string> cells;
      for (const std::string& one : series) cells.push_back(number_text(statistic(runs[0], one, std::string(name))));
      table.add(spaced(name), cells);
    }
    tables = table.html("numbers");
  } else {
    for (const std::string& one : series) {
      HtmlTable table("Stability of the " + spaced(one), names_of(runs));
      for (const auto& [name, unused] : statistics) {
        table.add(spaced(name), each(runs, [&](const RunRecord& run) {
                    return number_text(statistic(run, one, std::string(name)));
                  }));
      }
      tables += table.html("numbers");
    }
    tables = "<div class=\"columns\">" + tables + "</div>";
  }
  return section("stability", "Stability",
                 "Over every optimizer step (the last 10,000), not only those that were logged.", tables);
}

std::string recipe_section(Runs runs) {
  std::string tables;
  std::vector<bool> is_told(runs.size(), false);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto& recipe = runs[i].recipe_that_ran;
    if (is_told[i] || recipe.empty()) continue;
    std::vector<std::string> names;  // runs in which the same ran
    for (std::size_t j = i; j < runs.size(); ++j) {
      if (runs[j].recipe_that_ran != recipe) continue;
      is_told[j] = true;
      names.push_back(runs[j].name);
    }
    HtmlTable table(fmt::format("{}", fmt::join(names, ", ")), {"forward", "input gradient", "weight gradient"});
    for (const auto& [product, passes] : recipe.items()) {
      if (!passes.is_object()) continue;
      std::vector<std::string> cells;
      for (const char* pass : {"fprop", "dgrad", "wgrad"}) {
        cells.push_back(passes.contains(pass) && passes[pass].is_string() ? passes[pass].get<std::string>() : "–");
      }
      table.add(product, cells);
    }
    if (const auto share = recipe.find("fp8_flop_share"); share != recipe.end() && share->is_number()) {
      table.add("in FP8", {fmt::format("{:.1f} % of the operations", 100.0 * share->get<double>()), "", ""});
    }
    tables += table.html("texts");
  }
  if (!tables.empty()) tables = "<div class=\"columns wide\">" + tables + "</div>";
  return section("formats", "What ran in which format", "Each matrix product and pass, as recorded by the run itself.",
                 tables);
}

// The last look at every FP8 matrix of every run: a row for each layer, a column for each product and role.
std::string health_section(Runs runs) {
  std::string tables;
  for (const RunRecord& run : runs) {
    std::vector<std::string> columns;
    std::map<std::int64_t, std::map<std::string, std::string>> cells;  // layer → column → text
    for (const Fp8MatrixRecord& m : run.health.last) {
      const std::string column = m.product + " " + m.role;
      if (std::find(columns.begin(), columns.end(), column) == columns.end()) columns.push_back(column);
      cells[m.layer][column] = fmt::format("{:.2f} / {:.1f}", 100 * m.saturated_share, 100 * m.zero_share);
    }
    if (columns.empty()) continue;
    std::sort(columns.begin(), columns.end());
    HtmlTable table(fmt::format("{}, step {:.0f}", run.name, run.health.last_step), columns);
    for (const auto& [layer, of_layer] : cells) {
      std::vector<std::string> row;
      for (const std::string& column : columns) {
        const auto it = of_layer.find(column);
        row.push_back(it == of_layer.end() ? "" : it->second);
      }
      table.add(layer < 0 ? "no layer" : fmt::format("layer {}", layer), row);
    }
    tables += table.html("numbers");
  }
  return section("health", "FP8 at both ends of its range",
                 "Per cent of the codes at the format's largest value / at zero, of a sample of each matrix.", tables);
}

std::string run_section(Runs runs) {
  HtmlTable facts("Runs", names_of(runs));
  const auto count = [](std::int64_t n) { return n > 0 ? whole_text(static_cast<double>(n)) : std::string("–"); };
  const auto add_known = [&](const char* what, std::string RunRecord::*member) {
    const bool is_known = std::any_of(runs.begin(), runs.end(), [&](const RunRecord& run) { return !(run.*member).empty(); });
    if (is_known) facts.add(what, each(runs, [&](const RunRecord& run) { return run.*member; }));
  };
  facts.add("state", each(runs, [](const RunRecord& run) { return run.state; }));
  add_known("error", &RunRecord::error);
  facts.add("started", each(runs, [](const RunRecord& run) { return utc_text(run.started); }));
  facts.add("model", each(runs, [](const RunRecord& run) { return run.model; }));
  add_known("model on the hub", &RunRecord::model_commit);
  add_known("data set on the hub", &RunRecord::dataset_commit);
  facts.add("parameters", each(runs, [&](const RunRecord& run) { return count(run.parameters); }));
  facts.add("precision", each(runs, [](const RunRecord& run) { return run.precision; }));
  facts.add("device", each(runs, [](const RunRecord& run) { return run.device; }));
  facts.add("program", each(runs, [](const RunRecord& run) { return run.program + " " + run.version; }));
  facts.add("steps",
            each(runs, [&](const RunRecord& run) { return count(run.steps_done) + " of " + count(run.steps_total); }));
  facts.add("tokens", each(runs, [](const RunRecord& run) { return whole_text(run.tokens); }));

  // Rows and memory: whatever names any of the runs has, in the order of the first that has them.
  const auto union_of = [&](auto member) {
    std::vector<std::string> names;
    for (const RunRecord& run : runs) {
      for (const auto& [name, unused] : run.*member) {
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
      }
    }
    return names;
  };
  const auto value_of = [](const auto& list, const std::string& name) {
    for (const auto& [key, value] : list) {
      if (key == name) return static_cast<double>(value);
    }
    return kUnknown;
  };
  HtmlTable rows("Rows of data", names_of(runs));
  for (const std::string& name : union_of(&RunRecord::rows)) {
    rows.add(spaced(name), each(runs, [&](const RunRecord& run) { return whole_text(value_of(run.rows, name)); }));
  }
  HtmlTable memory("Memory, planned", names_of(runs));
  for (const std::string& name : union_of(&RunRecord::memory)) {
    memory.add(name, each(runs, [&](const RunRecord& run) { return bytes_text(value_of(run.memory, name)); }));
  }
  if (!memory.empty())
    memory.add("total", each(runs, [](const RunRecord& run) { return bytes_text(run.memory_bytes); }));
  return section(
      "runs", "Runs, memory, rows", "",
      "<div class=\"columns wide\">" + facts.html("texts") + memory.html("numbers") + rows.html("numbers") + "</div>");
}

std::string configuration_section(Runs runs) {
  const std::vector<std::string> differing = differing_flags(runs);
  std::vector<std::string> all;
  for (const RunRecord& run : runs) {
    for (const RunFlag& flag : run.flags) {
      if (std::find(all.begin(), all.end(), flag.name) == all.end()) all.push_back(flag.name);
    }
  }
  const auto values = [&](const std::string& name) {
    return each(runs, [&](const RunRecord& run) { return run.flag(name); });
  };
  const auto is_given = [&](const std::string& name) {
    return std::any_of(runs.begin(), runs.end(), [&](const RunRecord& run) {
      return std::any_of(run.flags.begin(), run.flags.end(), [&](const RunFlag& flag) {
        return flag.name == name && !flag.from.empty() && flag.from != "default";
      });
    });
  };
  const auto differs = [&](const std::string& name) {
    return std::find(differing.begin(), differing.end(), name) != differing.end();
  };

  const bool several = runs.size() > 1;
  HtmlTable first(several ? "Flags that differ, and others that were given" : "Flags that were given", names_of(runs));
  HtmlTable rest("Every other flag, at its default", names_of(runs));
  for (const std::string& name : all) {
    if (differs(name)) first.add(name, values(name), HtmlTable::Row::differs);
  }
  for (const std::string& name : all) {
    if (!differs(name)) (is_given(name) ? first : rest).add(name, values(name));
  }
  std::string html = first.html("texts");
  if (!rest.empty())
    html += "<details><summary>Every other flag, at its default</summary>" + rest.html("texts") + "</details>";
  return section("configuration", "Configuration",
                 several ? "Marked: flags whose values are not the same in all runs." : "", html);
}

}  // namespace

std::string tables_html(std::span<const RunRecord> runs) {
  return stability_section(runs) + recipe_section(runs) + health_section(runs) + run_section(runs) + configuration_section(runs);
}

}  // namespace llmfp8
