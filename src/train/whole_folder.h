// Folders that appear, are replaced and go as a whole, whatever kills the process meanwhile. Called by ModelSnapshots
// and by whoever opens a run's folder again.
#pragma once

#include <filesystem>
#include <functional>

namespace llmfp8 {

// Puts the content of a folder into the one that it is given.
using WriteFolder = std::function<void(const std::filesystem::path& folder)>;

// Written under a temporary name beside it and synced, then renamed: a folder with the final name is whole, and one
// that it replaces is removed last. What `write` throws passes on; nothing has changed then.
void write_whole_folder(const std::filesystem::path& folder, const WriteFolder& write);

// Renamed first, so that no half of it is left under its name.
void remove_whole_folder(const std::filesystem::path& folder);

// What a process that was killed in one of the two, or in an export, has left in a run's folder or its checkpoints/. A
// folder whose replacement had not arrived yet gets its name back.
void clear_remains(const std::filesystem::path& parent);

}  // namespace llmfp8
