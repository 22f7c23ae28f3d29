/* Blocks and launches: who runs next, who has met, and a report where nobody can go on.
 * See cuemu_inside.h. */
#include "tests/gpu/shim/cuemu_inside.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <utility>

extern "C" __attribute__((weak, visibility("hidden"))) char __start_cuemu_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) char __stop_cuemu_shared[];

namespace cuemu
{
/* ---- a block ------------------------------------------------------------- */

namespace
{
void fibers_begin(unsigned count, launch_tokens *tokens)
{
    const dim3 &dim = here->place.dim;
    here->fibers.resize(count);
    for (unsigned i = 0; i < count; i++) {
        fiber &f = here->fibers[i];
        f = fiber{};
        f.index = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
        f.linear = i;
        f.in = &here->place;
        f.tokens = tokens;
    }
}

/* Runs, in the order given, all that can run; returns how many did. */
unsigned run_each(const std::vector<unsigned> &order)
{
    unsigned ret = 0;
    for (unsigned i : order)
        if (here->fibers[i].at == RUNNABLE) {
            resume(&here->fibers[i]);
            ret++;
        }
    return ret;
}

/* What lane l of the warp from `first` on gets of the warp. */
uint64_t answer(unsigned first, unsigned together, const fiber &f)
{
    uint64_t ret = 0;
    if (f.lane != BALLOT)
        return f.lane < WARP && together >> f.lane & 1
                   ? here->fibers[first + f.lane].value
                   : f.value;
    for (unsigned l = 0; l < WARP; l++)
        if (together >> l & 1 && here->fibers[first + l].value)
            ret |= 1u << l;
    return ret;
}

/* Lets go of the lanes of a warp that have met; returns how many. */
unsigned meet_warp(unsigned first, unsigned lanes)
{
    unsigned ret = 0;
    for (unsigned l = 0; l < lanes; l++) {
        const fiber &f = here->fibers[first + l];
        if (f.at != AT_WARP)
            continue;
        unsigned there = 0, need = f.mask & (~0u >> (WARP - lanes));
        for (unsigned j = 0; j < lanes; j++) {
            const fiber &other = here->fibers[first + j];
            if (other.at == AT_WARP && other.mask == f.mask && other.where == f.where)
                there |= 1u << j;
        }
        if (there != need)
            continue;
        for (unsigned j = 0; j < lanes; j++)
            if (need >> j & 1)
                here->fibers[first + j].got =
                    answer(first, need, here->fibers[first + j]);
        for (unsigned j = 0; j < lanes; j++)
            if (need >> j & 1) {
                here->fibers[first + j].at = RUNNABLE;
                ret++;
            }
    }
    return ret;
}

/* Lets go of the barrier when every thread is there; returns how many. */
unsigned meet_block()
{
    const fiber *first = nullptr;
    unsigned there = 0, done = 0;
    for (const fiber &f : here->fibers) {
        done += f.at == DONE;
        if (f.at != AT_BARRIER)
            continue;
        there++;
        if (!first)
            first = &f;
        else if (strcmp(first->where, f.where)) {
            fprintf(stderr, "cuemu: thread %u is at %s, thread %u at %s\n",
                    first->linear, first->where, f.linear, f.where);
            die("threads at different barriers");
        }
    }
    if (!there || there + done < here->fibers.size())
        return 0;
    if (done) {
        fprintf(stderr, "cuemu: %s: %u threads have ended\n", first->where, done);
        die("a barrier that not all threads come to");
    }
    for (fiber &f : here->fibers)
        f.at = RUNNABLE;
    return there;
}

[[noreturn]] void deadlock()
{
    unsigned said = 0;
    for (const fiber &f : here->fibers)
        if ((f.at == AT_BARRIER || f.at == AT_WARP) && said++ < 4)
            fprintf(stderr, "cuemu: thread %u waits at %s, %s\n", f.linear, f.where,
                    f.at == AT_BARRIER ? "a barrier" : "a warp operation");
    die("deadlock");
}

bool all_done()
{
    for (const fiber &f : here->fibers)
        if (f.at != DONE)
            return false;
    return true;
}

void run_block(bool shuffled, launch_tokens *tokens)
{
    const dim3 &dim = here->place.dim;
    unsigned count = dim.x * dim.y * dim.z;
    std::vector<unsigned> order(count);

    if (__start_cuemu_shared)
        memset(__start_cuemu_shared, 0xff,
               static_cast<size_t>(__stop_cuemu_shared - __start_cuemu_shared));
    fibers_begin(count, tokens);
    for (unsigned i = 0; i < count; i++)
        order[i] = i;
    while (!all_done()) {
        if (shuffled)
            for (unsigned i = count; i > 1; i--)
                std::swap(order[i - 1], order[draw(&here->random) % i]);
        unsigned moved = run_each(order);
        for (unsigned first = 0; first < count; first += WARP)
            moved += meet_warp(first, count - first < WARP ? count - first : WARP);
        moved += meet_block();
        if (!moved)
            deadlock();
    }
}

/* ---- a launch ------------------------------------------------------------ */

struct launch {
    dim3 grid, dim;
    const std::function<void()> *body;
    uint64_t seed;
    unsigned preempt;
    launch_tokens tokens;
    std::vector<barrier_tokens> barriers; /* of each block */
};

/* A runner is never freed, nor its fibers: TSan would take that for a write. Nor is
 * this list, by which LSan finds them at the end of the process. */
std::vector<runner *> &runners = *new std::vector<runner *>;

runner *runner_new()
{
    runner *ret = new runner;
    ret->fibers.reserve(THREADS_MAX);
    return ret;
}

/* All that blocks at the same time need: what one of them made would look like a race
 * to the next one that takes it. */
void runners_begin_launch()
{
    while (runners.size() < BLOCKS_AT_ONCE)
        runners.push_back(runner_new());
}

runner *runner_take()
{
    runner *ret = nullptr;
    lock();
    if (!runners.empty()) {
        ret = runners.back();
        runners.pop_back();
    }
    unlock();
    return ret ? ret : runner_new();
}

void runner_give(runner *r)
{
    lock();
    runners.push_back(r);
    unlock();
}

void launch_block(launch *l, unsigned i)
{
    runner *before = here;
    thread *cur_before = cur;
    here = runner_take();
    here->place = {
        {i % l->grid.x, i / l->grid.x % l->grid.y, i / (l->grid.x * l->grid.y)},
        l->dim,
        l->grid};
    here->body = l->body;
    here->tokens = &l->barriers[i];
    here->random = (l->seed + i + 1) * 0x9E3779B97F4A7C15ull | 1;
    here->preempt = l->preempt;
    here->tsan = tsan_this();
    run_block(l->seed != 0, &l->tokens);
    runner_give(here);
    here = before;
    cur = cur_before;
}

/* Under TSan every block is on an OS thread of its own, which has its shared variables;
 * elsewhere one block follows another. */
void launch_blocks(launch *l, const std::vector<unsigned> &order)
{
    std::vector<std::thread> threads;
    for (unsigned i : order) {
        if (!tsan()) {
            launch_block(l, i);
            continue;
        }
        if (threads.size() == BLOCKS_AT_ONCE) {
            threads.front().join();
            threads.erase(threads.begin());
        }
        threads.emplace_back([l, i] { launch_block(l, i); });
    }
    for (std::thread &t : threads)
        t.join();
}

struct wishes {
    uint64_t seed;
    unsigned preempt;
};

wishes &wanted()
{
    static wishes ret = [] {
        const char *seed = getenv("CUEMU_SEED"), *preempt = getenv("CUEMU_PREEMPT");
        return wishes{seed ? strtoull(seed, nullptr, 10) : 0,
                      preempt ? static_cast<unsigned>(strtoul(preempt, nullptr, 10))
                              : 0};
    }();
    return ret;
}

unsigned long launches;
std::mutex one_at_a_time; /* __shared__ variables are one copy, runners are reused */
} // namespace

void run(dim3 grid, dim3 block, const std::function<void()> &body)
{
    unsigned blocks = grid.x * grid.y * grid.z;
    launch l = {grid,
                block,
                &body,
                wanted().seed,
                wanted().preempt,
                {},
                std::vector<barrier_tokens>(blocks)};
    unsigned threads = block.x * block.y * block.z;
    std::vector<unsigned> order(blocks);
    uint64_t random = (l.seed + 1) * 0x9E3779B97F4A7C15ull | 1;

    if (blocks == 0 || threads == 0 || threads > THREADS_MAX)
        die("a launch of no blocks, or of blocks of no or too many threads");
    std::lock_guard<std::mutex> alone(one_at_a_time);
    launches++;
    acquire(&launches);
    carriers_begin_launch();
    runners_begin_launch();
    for (unsigned i = 0; i < blocks; i++)
        order[i] = i;
    if (l.seed)
        for (unsigned i = blocks; i > 1; i--)
            std::swap(order[i - 1], order[draw(&random) % i]);
    release(&l.tokens.begin);
    launch_blocks(&l, order);
    acquire(&l.tokens.end);
    carriers_end_of_launch();
    release(&launches);
}
} // namespace cuemu

extern "C" void cuemu_order(uint64_t seed, unsigned preempt)
{
    cuemu::wanted() = {seed, preempt};
}

extern "C" unsigned long cuemu_launches(void)
{
    return cuemu::launches;
}
