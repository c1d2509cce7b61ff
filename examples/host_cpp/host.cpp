// A C++ program whose memory is a std::pmr::memory_resource, and a Python in it by
// pybind11.  All that the guest allocates through `alloc` comes from the resource.
#include <pybind11/embed.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory_resource>

#include "alloc/alloc_host.h"

namespace py = pybind11;

namespace {

// Passes on to the pool, and remembers how much is out.
class watched final : public std::pmr::memory_resource {
public:
    explicit watched(std::pmr::memory_resource *upstream) : upstream_(upstream) {}
    std::atomic<std::size_t> out{0}, peak{0}, calls{0};

private:
    std::pmr::memory_resource *upstream_;

    void *do_allocate(std::size_t bytes, std::size_t align) override {
        void *block = upstream_->allocate(bytes, align);
        std::size_t now = out += bytes, seen = peak;
        while (now > seen && !peak.compare_exchange_weak(seen, now)) {
        }
        ++calls;
        return block;
    }
    void do_deallocate(void *block, std::size_t bytes, std::size_t align) override {
        upstream_->deallocate(block, bytes, align);
        out -= bytes;
    }
    bool do_is_equal(const memory_resource &other) const noexcept override {
        return this == &other;
    }
};

// --- a memory resource as an alloc_table -------------------------------------------
//
// A resource cannot tell its blocks from others, nor their size, and must be told the
// size when it takes one back: so no capability is claimed, and `alloc` remembers.
// It has no room to spare that it would admit, so the usable size has to be kept: in
// front of the block, in as many bytes as keep it aligned.

std::size_t front(std::size_t align) {
    return align > alignof(std::max_align_t) ? align : alignof(std::max_align_t);
}

// A multiple of the alignment: libstdc++'s pools align nothing else (GCC 12),
// which alloc's self-test of the table found out.
std::size_t padded(std::size_t size, std::size_t align) {
    return (size + 2 * front(align) - 1) / front(align) * front(align);
}

void *table_alloc(void *ctx, std::size_t size, std::size_t align) {
    auto *resource = static_cast<std::pmr::memory_resource *>(ctx);
    try {
        auto *base =
            static_cast<char *>(resource->allocate(padded(size, align), front(align)));
        std::memcpy(base + front(align) - sizeof size, &size, sizeof size);
        return base + front(align);
    } catch (const std::bad_alloc &) {
        return nullptr; // no exception may cross the table
    }
}

void *table_alloc_zeroed(void *ctx, std::size_t size, std::size_t align) {
    void *block = table_alloc(ctx, size, align);
    return block == nullptr ? nullptr : std::memset(block, 0, size);
}

int table_resize(void *, void *, std::size_t size, std::size_t, std::size_t new_size) {
    return size == new_size;
}

void table_dealloc(void *ctx, void *block, std::size_t size, std::size_t align) {
    auto *resource = static_cast<std::pmr::memory_resource *>(ctx);
    resource->deallocate(static_cast<char *>(block) - front(align), padded(size, align),
                         front(align));
}

void *table_realloc(void *ctx, void *block, std::size_t size, std::size_t align,
                    std::size_t new_size) {
    void *moved = table_alloc(ctx, new_size, align);
    if (moved != nullptr) {
        std::memcpy(moved, block, size < new_size ? size : new_size);
        table_dealloc(ctx, block, size, align);
    }
    return moved;
}

std::size_t table_usable_size(void *, const void *block) {
    std::size_t size;
    std::memcpy(&size, static_cast<const char *>(block) - sizeof size, sizeof size);
    return size;
}

int table_owns(void *, const void *) { return 1; }

std::pmr::synchronized_pool_resource pool;
watched memory(&pool);

const alloc_table table = {ALLOC_ABI,
                           sizeof(alloc_table),
                           0,
                           "pmr",
                           static_cast<std::pmr::memory_resource *>(&memory),
                           table_alloc,
                           table_alloc_zeroed,
                           table_resize,
                           table_realloc,
                           table_dealloc,
                           table_usable_size,
                           table_owns};

const alloc_host host = ALLOC_HOST(&table, 0);

void tell(const char *when) {
    std::printf("host: %-22s %8.2f MiB held, %8.2f MiB at most, %6zu granted\n", when,
                double(memory.out) / (1 << 20), double(memory.peak) / (1 << 20),
                memory.calls.load());
}

} // namespace

PYBIND11_EMBEDDED_MODULE(host, m) {
    m.def("held", [] { return memory.out.load(); });
    m.def("tell", [](const std::string &when) { tell(when.c_str()); });
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    {
        PyConfig config;
        PyConfig_InitPythonConfig(&config);
        config.parse_argv = 0;
        config.buffered_stdio = 0;
        PyConfig_SetBytesString(&config, &config.program_name, PYTHON_PROGRAM);
        py::scoped_interpreter interpreter(&config);
        // An interpreter runs: for this one only.
        if (alloc_host_register(&host) != 0)
            throw py::error_already_set();
        tell("before the guest");
        py::eval_file(argv[1]);
        tell("after the guest");
    }
    tell("after finalization");
    if (memory.out != 0 || memory.calls == 0) {
        std::puts("host: BAD: the guest left something behind, or was never here");
        return 1;
    }
    return 0;
}
