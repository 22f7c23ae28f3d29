/* Fake NCCL; see fake_nccl.h. */
#include "tests/gpu/fake_nccl.h"

#include "gpu/nccl_api.h"
#include "tests/gpu/fake/fake_work.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

#define ASYNC_LOOKS 3 /* before an error of that kind is told */

/* ---- the plan ------------------------------------------------------------ */

namespace
{

struct fault {
    std::string call, how;
    int rank;
    unsigned which;
};

struct plan {
    int version = 22809;
    unsigned progress = 0, late = 0;
    std::vector<fault> faults;
    std::map<std::pair<std::string, int>, unsigned> calls;
    unsigned aborted = 0;
};

/* One lock for all: what is slow here is nobody's concern. It is never held while the
 * fake CUDA is called, which has one of its own. */
std::mutex lock;
plan now;
bool planned = false;
unsigned alive = 0, ids = 0;

void misuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void misuse(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    std::fputs("fake NCCL: ", stderr);
    std::vfprintf(stderr, format, list);
    std::fputs("\n", stderr);
    va_end(list);
    std::abort();
}

int number_at(const std::string &text, size_t at)
{
    return (int)std::strtol(text.c_str() + at, nullptr, 10);
}

void read_part(const std::string &part, plan *ret)
{
    fault one;
    size_t at = part.find('@'), hash = part.find('#'), colon = part.find(':');

    if (part.compare(0, 8, "version=") == 0)
        ret->version = number_at(part, 8);
    else if (part.compare(0, 9, "progress=") == 0)
        ret->progress = (unsigned)number_at(part, 9);
    else if (part.compare(0, 5, "late=") == 0)
        ret->late = (unsigned)number_at(part, 5);
    else if (at == std::string::npos || hash == std::string::npos ||
             colon == std::string::npos)
        misuse("no such plan: %s", part.c_str());
    else {
        one.call = part.substr(0, at);
        one.rank = number_at(part, at + 1);
        one.which = (unsigned)number_at(part, hash + 1);
        one.how = part.substr(colon + 1);
        ret->faults.push_back(one);
    }
}

void set_plan(const char *text)
{
    std::string rest = text != nullptr ? text : "";
    plan fresh;

    while (!rest.empty()) {
        size_t comma = rest.find(',');

        read_part(rest.substr(0, comma), &fresh);
        rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    }
    now = fresh;
    planned = true;
}

/* What shall happen to this call; "": nothing. */
std::string fate(const char *call, int rank)
{
    if (!planned)
        set_plan(std::getenv("FAKE_NCCL"));
    unsigned count = ++now.calls[{call, rank}];

    for (const fault &one : now.faults)
        if (one.call == call && one.rank == rank && one.which == count)
            return one.how;
    return "";
}

int code_of(const std::string &how)
{
    return how == "error"    ? NCCL_CUDA_ERROR
           : how == "system" ? NCCL_SYSTEM_ERROR
           : how == "usage"  ? NCCL_INVALID_USAGE
                             : NCCL_SUCCESS;
}

/* ---- groups -------------------------------------------------------------- */

/* One collective of a group. */
struct meeting {
    bool reduce;
    size_t count;
    int root;
    unsigned came = 0, left = 0;
    std::vector<std::vector<float>> part; /* by rank */
    std::vector<float> result;
};

struct group {
    int size;
    unsigned joined = 0, finalized = 0;
    std::vector<bool> there;
    std::map<unsigned, meeting> meetings; /* by number */
    bool failing = false;                 /* soon everybody is told */
    unsigned looks = 0;
};

/* One rank's end of it. */
struct rank_end {
    std::shared_ptr<group> all;
    int rank;
    unsigned number = 0; /* of the next collective */
    unsigned progress = 0;
    bool over = false, finalizing = false;
    int error = NCCL_SUCCESS;
};

std::map<std::string, std::shared_ptr<group>> groups; /* by id */

} // namespace

struct ncclComm {
    std::shared_ptr<rank_end> end;
    unsigned magic;
};

namespace
{

const unsigned COMM_MAGIC = 0x6e63636cu;

rank_end *use(nccl_comm comm)
{
    if (comm == nullptr || comm->magic != COMM_MAGIC || comm->end->over)
        misuse("a communicator that has ended, or never was, is used");
    return comm->end.get();
}

bool all_joined(const rank_end *end)
{
    return end->all->joined == (unsigned)end->all->size;
}

/* ---- a collective on a stream -------------------------------------------- */

struct operation {
    std::shared_ptr<rank_end> end;
    unsigned number;
    float *x;
    bool here = false;
    unsigned late;
};

std::list<operation> operations; /* under way, of all ranks */

void arrive(operation *one, meeting *meet)
{
    meet->part[(size_t)one->end->rank].assign(one->x, one->x + meet->count);
    one->here = true;
    if (++meet->came < (unsigned)one->end->all->size)
        return;
    meet->result = meet->part[(size_t)(meet->reduce ? 0 : meet->root)];
    for (size_t r = 1; meet->reduce && r < meet->part.size(); r++)
        for (size_t i = 0; i < meet->count; i++)
            meet->result[i] += meet->part[r][i];
}

void finish(operation *one)
{
    operations.remove_if([one](const operation &other) { return &other == one; });
}

/* True: the stream may go on. */
bool run(void *context)
{
    operation *one = static_cast<operation *>(context);
    std::lock_guard<std::mutex> hold(lock);
    group *all = one->end->all.get();

    if (one->end->over) { /* aborted: the kernel gives up */
        finish(one);
        return true;
    }
    meeting *meet = &all->meetings.at(one->number);
    if (!one->here)
        arrive(one, meet);
    if (meet->came < (unsigned)all->size)
        return false;
    if (one->late > 0) {
        one->late--;
        return false;
    }
    if (meet->count > 0)
        std::memcpy(one->x, meet->result.data(), meet->count * sizeof(float));
    if (++meet->left == (unsigned)all->size)
        all->meetings.erase(one->number);
    finish(one);
    return true;
}

/* The rank is known to take part; what it brings comes later. */
operation *enlist(nccl_comm comm, bool reduce, float *x, size_t count, int root)
{
    rank_end *end = use(comm);
    auto found = end->all->meetings.find(end->number);

    if (found == end->all->meetings.end()) {
        meeting fresh;

        fresh.reduce = reduce;
        fresh.count = count;
        fresh.root = root;
        fresh.part.resize((size_t)end->all->size);
        found = end->all->meetings.emplace(end->number, fresh).first;
    }
    if (found->second.reduce != reduce || found->second.count != count ||
        found->second.root != root)
        misuse("rank %d calls %s of %zu, another rank %s of %zu", end->rank,
               reduce ? "AllReduce" : "Broadcast", count,
               found->second.reduce ? "AllReduce" : "Broadcast", found->second.count);
    operations.emplace_back();
    operations.back().end = comm->end;
    operations.back().number = end->number++;
    operations.back().x = x;
    operations.back().late = now.late;
    return &operations.back();
}

bool never(void *context)
{
    operation *one = static_cast<operation *>(context);
    std::lock_guard<std::mutex> hold(lock);

    if (!one->end->over)
        return false;
    finish(one);
    return true;
}

fake_work_fn *cuda_work()
{
    const char *plugin = std::getenv("GAPLESS_CUDA_PLUGIN");
    void *library = plugin != nullptr
                        ? dlopen(plugin, RTLD_NOW | RTLD_NOLOAD | RTLD_LOCAL)
                        : nullptr;
    void *found = library != nullptr ? dlsym(library, FAKE_WORK_SYMBOL) : nullptr;
    fake_work_fn *ret;

    if (found == nullptr)
        misuse("the plugin is not the fake one (GAPLESS_CUDA_PLUGIN)");
    std::memcpy(&ret, &found, sizeof ret);
    return ret;
}

int collective(const char *call, nccl_comm comm, bool reduce, float *x, size_t count,
               int root, cudaStream_t stream)
{
    fake_work_fn *work = cuda_work();
    operation *one;
    std::string how;

    {
        std::lock_guard<std::mutex> hold(lock);
        rank_end *end = use(comm);

        if (!all_joined(end) || end->progress > 0 || end->finalizing)
            misuse("rank %d calls %s while the communicator is in progress", end->rank,
                   call);
        how = fate(call, end->rank);
        if (code_of(how) != NCCL_SUCCESS)
            return code_of(how);
        one = enlist(comm, reduce, x, count, root);
        end->all->failing = end->all->failing || how == "async";
        end->progress = now.progress;
    }
    if (work(stream, call, how.empty() ? run : never, one) != cudaSuccess) {
        std::lock_guard<std::mutex> hold(lock);

        finish(one);
        return NCCL_CUDA_ERROR;
    }
    return now.progress > 0 ? NCCL_IN_PROGRESS : NCCL_SUCCESS;
}

void end_comm(nccl_comm comm)
{
    comm->end->over = true;
    comm->magic = 0;
    alive--;
    delete comm;
}

} // namespace

/* ---- the functions ------------------------------------------------------- */

#define NCCL_DECLARE(name, result, arguments)                                          \
    extern "C" __attribute__((visibility("default"))) result nccl##name arguments;
NCCL_API_FUNCTIONS(NCCL_DECLARE)
#undef NCCL_DECLARE

int ncclGetVersion(int *ret)
{
    std::lock_guard<std::mutex> hold(lock);

    (void)fate("GetVersion", 0);
    *ret = now.version;
    return NCCL_SUCCESS;
}

int ncclGetUniqueId(struct nccl_id *ret)
{
    std::lock_guard<std::mutex> hold(lock);
    int code = code_of(fate("GetUniqueId", 0));

    if (code != NCCL_SUCCESS)
        return code;
    std::memset(ret, 0, sizeof *ret);
    (void)std::snprintf(ret->bytes, sizeof ret->bytes, "group %u", ++ids);
    return NCCL_SUCCESS;
}

static void check_config(const struct nccl_config *config)
{
    if (config == nullptr || config->size != sizeof *config ||
        config->magic != NCCL_API_MAGIC || config->version != NCCL_API_OLDEST)
        misuse("the configuration is not as 2.18 has it");
    if (config->blocking != 0)
        misuse("a blocking communicator: its calls wait without a bound");
}

int ncclCommInitRankConfig(nccl_comm *ret, int size, struct nccl_id id, int rank,
                           struct nccl_config *config)
{
    std::lock_guard<std::mutex> hold(lock);
    std::string how = fate("CommInitRankConfig", rank);
    std::shared_ptr<group> &all = groups[id.bytes];

    check_config(config);
    if (code_of(how) != NCCL_SUCCESS)
        return code_of(how);
    if (all == nullptr) {
        all = std::make_shared<group>();
        all->size = size;
        all->there.resize((size_t)size);
    }
    if (all->size != size || rank < 0 || rank >= size || all->there[(size_t)rank])
        return NCCL_INVALID_ARGUMENT;
    all->there[(size_t)rank] = true;
    all->joined += how.empty();
    all->failing = all->failing || how == "async";
    *ret = new ncclComm{std::make_shared<rank_end>(), COMM_MAGIC};
    (*ret)->end->all = all;
    (*ret)->end->rank = rank;
    (*ret)->end->progress = now.progress;
    alive++;
    return NCCL_IN_PROGRESS;
}

int ncclCommGetAsyncError(nccl_comm comm, int *ret)
{
    std::lock_guard<std::mutex> hold(lock);
    rank_end *end = use(comm);
    int code = code_of(fate("CommGetAsyncError", end->rank));

    if (code != NCCL_SUCCESS)
        return code;
    if (end->all->failing && ++end->all->looks > ASYNC_LOOKS)
        end->error = NCCL_REMOTE_ERROR;
    if (end->error != NCCL_SUCCESS) {
        *ret = end->error;
        return NCCL_SUCCESS;
    }
    if (all_joined(end) && end->progress > 0)
        end->progress--;
    *ret = !all_joined(end) || end->progress > 0 ||
                   (end->finalizing && end->all->finalized < (unsigned)end->all->size)
               ? NCCL_IN_PROGRESS
               : NCCL_SUCCESS;
    return NCCL_SUCCESS;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op,
                  nccl_comm comm, cudaStream_t stream)
{
    if (from != to || type != NCCL_FLOAT32 || op != NCCL_SUM)
        misuse("AllReduce of what is not one vector of floats, summed");
    return collective("AllReduce", comm, true, static_cast<float *>(to), count, 0,
                      stream);
}

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root,
                  nccl_comm comm, cudaStream_t stream)
{
    if (from != to || type != NCCL_FLOAT32)
        misuse("Broadcast of what is not one vector of floats");
    return collective("Broadcast", comm, false, static_cast<float *>(to), count, root,
                      stream);
}

int ncclCommFinalize(nccl_comm comm)
{
    std::lock_guard<std::mutex> hold(lock);
    rank_end *end = use(comm);
    std::string how = fate("CommFinalize", end->rank);

    if (code_of(how) != NCCL_SUCCESS)
        return code_of(how);
    if (end->finalizing)
        misuse("rank %d finalizes twice", end->rank);
    end->finalizing = true;
    end->all->finalized += how.empty();
    return NCCL_IN_PROGRESS;
}

int ncclCommDestroy(nccl_comm comm)
{
    std::lock_guard<std::mutex> hold(lock);
    rank_end *end = use(comm);

    if (!end->finalizing || end->all->finalized < (unsigned)end->all->size)
        misuse("rank %d destroys a communicator that is not at rest", end->rank);
    end_comm(comm);
    return NCCL_SUCCESS;
}

int ncclCommAbort(nccl_comm comm)
{
    std::unique_lock<std::mutex> hold(lock);
    const int rank = use(comm)->rank;

    now.aborted++;
    if (fate("CommAbort", rank) == "stuck") {
        alive--; /* nobody can be blamed for it */
        hold.unlock();
        for (;;)
            (void)pause();
    }
    end_comm(comm);
    return NCCL_SUCCESS;
}

const char *ncclGetErrorString(int result)
{
    static const char *const texts[] = {
        "no error",       "unhandled cuda error", "unhandled system error",
        "internal error", "invalid argument",     "invalid usage",
        "remote error",   "in progress"};

    return result >= 0 && result <= NCCL_IN_PROGRESS ? texts[result] : "unknown";
}

const char *ncclGetLastError(nccl_comm comm)
{
    (void)comm;
    return "as planned";
}

/* ---- for tests ----------------------------------------------------------- */

__attribute__((visibility("default"))) void fake_nccl_plan(const char *plan)
{
    std::lock_guard<std::mutex> hold(lock);

    set_plan(plan);
}

__attribute__((visibility("default"))) unsigned fake_nccl_open(void)
{
    std::lock_guard<std::mutex> hold(lock);

    return alive;
}

__attribute__((visibility("default"))) unsigned fake_nccl_aborted(void)
{
    std::lock_guard<std::mutex> hold(lock);

    return now.aborted;
}
