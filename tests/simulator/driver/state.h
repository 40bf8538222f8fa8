// Everything that the simulated driver knows, under one lock. Work that is given to a stream is a task: it
// runs at once (Early), when something waits for it (Late), or in between (Random).
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../simulator.h"
#include "api.h"

namespace simulated_driver {

// What a call answers when it cannot do its work; the text is for whoever reads the simulator's messages.
struct Failure {
  int result;
  std::string text;
};

struct Action {
  int node_type;  // as CUgraphNodeType: 0 kernel, 1 memcpy, 2 memset, 5 empty, ...
  std::function<void()> work;
};

struct Ticket {  // the tasks of a stream up to this number
  Handle stream = 0;
  uint64_t number = 0;
};

struct Task {
  uint64_t number;
  std::vector<Ticket> after;
  Action action;
};

struct Node {
  Action action;
  std::vector<size_t> after;
};

struct Graph {
  std::vector<Node> nodes;
};

struct Capture {
  Handle id, origin, context;
  int mode;
  std::thread::id owner;
  bool valid = true, active = true;
  std::shared_ptr<Graph> graph;
  std::map<Handle, std::vector<size_t>> ends;  // streams that take part: what their next node comes after
};

struct Stream {
  Handle handle, context;
  unsigned flags;
  int priority;
  std::deque<Task> tasks;
  uint64_t last = 0;  // number of the newest task
  std::shared_ptr<Capture> capture;
};

struct Event {
  Handle context;
  unsigned flags;
  Ticket ticket;
  double milliseconds = -1;
  std::shared_ptr<Capture> capture;
  std::vector<size_t> nodes;
};

struct Module {
  Handle context;
  int number;  // in the machine of its device
  bool loaded = true;
};

struct Function {
  Handle context, module_handle;
  std::shared_ptr<Module> module;
  simulator::KernelInfo info;
  int max_dynamic_shared = 48 * 1024;
};

struct Library {
  std::string ptx;
  std::map<Handle, Handle> modules;  // per context
};

struct Kernel {
  Handle library;
  std::string name;
  std::map<int, int> max_dynamic_shared;  // per device
};

struct Allocation {
  uint64_t bytes;
  int device;
  bool host, registered;
  uint64_t id;
};

struct Device;

struct Context {
  Handle handle;
  Device* device;
  bool active = false;
  int references = 0;
  unsigned flags = 0;
  int broken = SUCCESS;  // the error that every later call answers
  std::shared_ptr<Stream> legacy;
  std::map<std::thread::id, std::shared_ptr<Stream>> per_thread;
};

struct Device {
  int ordinal, major, minor;
  std::string name;
  int multiprocessors, threads_per_multiprocessor, blocks_per_multiprocessor;
  int shared_per_multiprocessor, shared_optin, l2_bytes, clock_khz;
  Context context;
  std::unique_ptr<simulator::Machine> machine;
  uint64_t bytes = 0;   // allocated
  int generations = 0;  // machines so far: each one gives out other addresses
};

struct Fault {
  std::string where;  // pattern of names of calls, or "execution"
  int64_t after;      // calls that still succeed
  int result;
};

class Driver {
 public:
  static Driver& get();

  std::recursive_mutex lock;
  bool initialized = false;
  long process = 0;

  // Configuration
  int visible = 0;
  int version = 13050;
  uint64_t memory_bytes = uint64_t{1} << 30;
  int64_t schedule = -1;  // -1 early, -2 late, otherwise a seed
  bool strict_reads = true;
  std::vector<Fault> faults;
  std::mt19937_64 random{0};

  // Reports
  std::map<std::string, int64_t> counters;
  std::deque<std::string> log;
  std::string messages;

  std::vector<Device> devices;
  std::map<Handle, std::shared_ptr<Stream>> streams;
  std::map<Handle, std::shared_ptr<Event>> events;
  std::map<Handle, std::shared_ptr<Module>> modules;
  std::map<Handle, std::shared_ptr<Function>> functions;
  std::map<Handle, Library> libraries;
  std::map<Handle, Kernel> kernels;
  std::map<Handle, std::shared_ptr<Graph>> graphs;
  std::map<Handle, std::pair<Handle, std::shared_ptr<Graph>>> executables;  // context and graph
  std::map<uint64_t, Allocation> allocations;
  std::set<std::shared_ptr<Capture>> captures;

  Handle next_handle() { return handles_ += 16; }

  static void become(Device& device, int capability);  // 90 for 9.0
  Device& device(int ordinal);                         // INVALID_DEVICE
  Context* context(Handle handle);                     // null unless it is one
  Context& current();  // of this thread; INVALID_CONTEXT, CONTEXT_IS_DESTROYED
  simulator::Machine& machine(Device& device);
  void apply_schedule(Device& device);
  void close(Context& context);  // destroys what is in it

  // The allocation that holds an address; end() if none does.
  std::map<uint64_t, Allocation>::iterator find(uint64_t address);
  // The allocation that holds these device bytes; INVALID_VALUE.
  const Allocation& device_range(uint64_t address, uint64_t bytes, const char* what);

  std::shared_ptr<Stream> stream(Handle handle);  // also the default streams of the current context
  std::shared_ptr<Stream> stream_of(Context& context,
                                    Handle handle);  // INVALID_HANDLE if it is of another context
  std::shared_ptr<Event> event(Handle handle);
  Ticket enqueue(Stream& stream, Action action, std::vector<Ticket> after = {});
  void run(Ticket ticket);     // until this task is done
  void run(Context& context);  // until all are done
  void step(Stream& stream);   // the oldest task, if there is one
  bool done(Ticket ticket);
  void perform(Context& context, const Action& action);  // errors break the context
  void execute(Context& context, const Graph& graph);

  // Capture: calls that may not be made while a stream captures
  void refuse_while_capturing(const char* name);
  void invalidate(Capture& capture);
  int& thread_capture_mode();
  std::vector<Handle>& context_stack();

  void submit(Stream& stream, Action action);  // a task, or a node of the graph that the stream captures
  void synchronize(Stream& stream);            // answers what went wrong in its context
  static void check(const Context& context);   // fails with the error of a broken context

  int fault(const std::string& name);  // the result that the call must answer; SUCCESS for none
  void note(const std::string& line);

 private:
  Driver();
  Handle handles_ = 0x10000;
};

// Runs the body of one entry point, locked and logged, and turns failures into results.
int call(const char* name, bool needs_initialization, const std::function<void(Driver&)>& body);
// The same for entry points that work in the current context: a broken one answers its error.
int call_in_context(const char* name, const std::function<void(Driver&, Context&)>& body);

[[noreturn]] void fail(int result, const std::string& text = "");

// A function, or the function of a library's kernel in this context; INVALID_HANDLE for another context's.
std::shared_ptr<Function> function(Driver& driver, Context& context, Handle handle);
Handle function_handle(Driver& driver, Context& context, Handle kernel);

std::vector<Entry> device_entries();
std::vector<Entry> context_entries();
std::vector<Entry> memory_entries();
std::vector<Entry> copy_entries();
std::vector<Entry> module_entries();
std::vector<Entry> launch_entries();
std::vector<Entry> stream_entries();
std::vector<Entry> event_entries();
std::vector<Entry> graph_entries();

}  // namespace simulated_driver
