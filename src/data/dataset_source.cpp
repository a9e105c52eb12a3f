#include "data/dataset_source.h"

#include <algorithm>

#include "core/error.h"
#include "data/dataset_files.h"
#include "hub/file_io.h"
#include "hub/hub_repository.h"

namespace llmfp8 {

DatasetFiles resolve_dataset(const std::string& name, const std::string& split, const std::string& config,
                             const HubOptions& options) {
  if (const auto local = find_local(RepoKind::dataset, name)) return find_dataset_files(*local, split, config);
  HubSnapshot snapshot = HubSnapshot::open({RepoKind::dataset, name}, options);
  DatasetListing listing{snapshot.is_on_hub() ? name : name + " (as far as it lies in the cache)", {}, {}};
  for (const HubFile& file : snapshot.files()) {
    const bool hidden = file.path.starts_with('.') || file.path.find("/.") != std::string::npos;
    if (!hidden) listing.files.push_back(file.path);
  }
  std::sort(listing.files.begin(), listing.files.end());
  if (snapshot.has("README.md")) {
    snapshot.fetch({"README.md"});
    listing.readme = read_text_file(snapshot.folder() / "README.md");
  }
  const std::vector<std::string> wanted = files_of_split(listing, config, split);
  snapshot.fetch(wanted);
  DatasetFiles found{name, split, {}};
  for (const std::string& file : wanted) found.files.push_back(snapshot.folder() / file);
  return found;
}

}  // namespace llmfp8
