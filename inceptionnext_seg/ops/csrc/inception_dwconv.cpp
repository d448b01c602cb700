// Inception depthwise convolution (arXiv:2303.16900), forward and backward, each in one pass over its tensors.
//
// The channels are identity | square k x k | band 1 x k (along the width) | band k x 1 (along the height), the last
// three of `branch` channels each. All three are one thing here, a Strip: vectors that are correlated alike with a
// kernel of kh x kw. It keeps the last kh rows, widened to the type that is summed in and with zeros at both ends, in a
// ring, so that every element is read once from the tensor, and no border needs a case of its own.
//
// The two layouts differ in what a vector's lanes are, and in nothing else of a Strip:
//   NHWC: neighbouring channels of one pixel; the next pixel is a whole vector further in the ring;
//   NCHW: neighbouring pixels of one channel; the next pixel is one element further.
//
// The two directions differ in what is read: the gradient of the input is the output's correlated with the flipped
// kernels, and the gradient of a weight is the sum of the products of input and output gradient at its distance.
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <numeric>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

// Numbers

struct bfloat16 { uint16_t bits; };

template <class T> struct SumType { using type = T; };
template <> struct SumType<bfloat16> { using type = float; };
template <class T> using Sum = typename SumType<T>::type;

template <class A> struct VectorType { typedef A type __attribute__((vector_size(VECTOR_BYTES))); };
template <class A> using Vector = typename VectorType<A>::type;
template <class A> constexpr int LANES = VECTOR_BYTES / sizeof(A);

typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));

inline Vector<float> load(const float* source) {
  Vector<float> v;
  std::memcpy(&v, source, sizeof v);
  return v;
}

inline Vector<double> load(const double* source) {
  Vector<double> v;
  std::memcpy(&v, source, sizeof v);
  return v;
}

inline Vector<float> load(const bfloat16* source) {
  Halves halves;
  std::memcpy(&halves, source, sizeof halves);
  return (Vector<float>)(__builtin_convertvector(halves, Words) << 16);
}

inline void store(float* target, Vector<float> v) { std::memcpy(target, &v, sizeof v); }
inline void store(double* target, Vector<double> v) { std::memcpy(target, &v, sizeof v); }

inline void store(bfloat16* target, Vector<float> v) {  // to the nearest, ties to even, NaN to torch's NaN
  const Words bits = (Words)v;
  Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Words is_number = (Words)(v == v);
  rounded = (rounded & is_number) | (0x7fc0 & ~is_number);
  const Halves halves = __builtin_convertvector(rounded, Halves);
  std::memcpy(target, &halves, sizeof halves);
}

// Lanes `begin` to `end` alone, where the others are outside the tensor; they are zero when read.
template <class T> inline Vector<Sum<T>> load_part(const T* source, int begin, int end) {
  T part[LANES<Sum<T>>] = {};
  std::memcpy(part + begin, source + begin, (end - begin) * sizeof(T));
  return load(part);
}

template <class T> inline void store_part(T* target, Vector<Sum<T>> v, int begin, int end) {
  T part[LANES<Sum<T>>];
  store(part, v);
  std::memcpy(target + begin, part + begin, (end - begin) * sizeof(T));
}

// Shapes

struct Shape {
  int64_t images, channels, height, width, branch, kernels[3];  // kernel sizes of square, band 1 x k, band k x 1
  int64_t identity() const { return channels - 3 * branch; }
  int64_t first(int kind) const { return identity() + kind * branch; }
  int64_t kh(int kind) const { return kind == 1 ? 1 : kernels[kind]; }
  int64_t kw(int kind) const { return kind == 2 ? 1 : kernels[kind]; }
};

// How the vectors of a strip lie in a row of the tensor: vector i begins at element offset + i * stride.
struct Layout {
  int64_t offset, stride, vectors;
  int64_t step;    // elements from a pixel to the next in the ring: a whole vector, or one
  int64_t whole;   // the first so many vectors have all lanes in the tensor; the others only lanes begin to end
  int begin, end;
};

// NHWC: vector i is pixel i, lane l is channel first + l. Where the tensor has fewer channels than a vector has lanes,
// first is below zero. A vector may begin with channels that are not the strip's own; what is written to them means
// nothing. So strips are taken from the last channel to the first, and each mends what the one before wrote below its
// own: whole vectors are so much faster than parts.
template <class T> Layout channel_lanes(int64_t first, int64_t channels, int64_t width) {
  constexpr int N = LANES<Sum<T>>;
  return {first, channels, width, N, first < 0 ? 0 : width, int(std::max<int64_t>(0, -first)), N};
}

// NCHW: vector i is pixels i * N and on, of one channel.
template <class T> Layout pixel_lanes(int64_t width) {
  constexpr int N = LANES<Sum<T>>;
  return {0, N, (width + N - 1) / N, 1, width / N, 0, int(width % N)};
}

// Zeroed memory for all that a thread needs, in one piece: many small ones would take longer than a small image does.
class Memory {
 public:
  explicit Memory(int64_t bytes) : data(static_cast<char*>(::operator new(bytes, ALIGNMENT))), next(data) {
    std::memset(data, 0, bytes);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { ::operator delete(data, ALIGNMENT); }

  template <class A> static int64_t bytes(int64_t size) {
    return (size * int64_t(sizeof(A)) + VECTOR_BYTES - 1) / VECTOR_BYTES * VECTOR_BYTES;
  }
  template <class A> A* take(int64_t size) {
    A* taken = reinterpret_cast<A*>(next);
    next += bytes<A>(size);
    return taken;
  }

 private:
  static constexpr std::align_val_t ALIGNMENT{VECTOR_BYTES};
  char *data, *next;
};

// A strip takes a tile, some neighbouring vectors of every row, row by row, and then the next tile.
template <class T> class Strip {
  using A = Sum<T>;
  static constexpr int N = LANES<A>;
  static constexpr int64_t SUMMED_IN_A = 512;  // so many vectors, before the sum goes on in double

 public:
  // `tile` is the most vectors that a tile has.
  Strip(const Layout& at, int64_t tile, int64_t height, int64_t kh, int64_t kw)
      : at(at), tile(tile), height(height), kh(kh), kw(kw),
        row_size((tile * N + (kw - 1) * at.step + N - 1) / N * N) {}

  int64_t bytes(bool with_sums) const {
    const int64_t always = Memory::bytes<const A*>(taps()) + Memory::bytes<A>(kh * row_size + (taps() + 1) * N);
    const int64_t sums = Memory::bytes<A>((taps() + 1) * N + tile * N) + Memory::bytes<double>((taps() + 1) * N);
    return always + (with_sums ? sums : 0);
  }

  void take(Memory& memory, bool with_sums) {
    sources = memory.take<const A*>(taps());
    weights = memory.take<A>(kh * row_size + (taps() + 1) * N);
    ring = weights + (taps() + 1) * N;
    if (!with_sums) return;
    sums = memory.take<A>((taps() + 1) * N + tile * N);
    factor = sums + (taps() + 1) * N;
    long_sums = memory.take<double>((taps() + 1) * N);
  }

  int64_t taps() const { return kh * kw; }
  // One lane of the weight of tap t; the tap after the last is the bias.
  void set_weight(int64_t t, int lane, A value) { weights[t * N + lane] = value; }

  // From here on vectors `first` to `first + count` of row h and of the rows below it are taken.
  void start(int64_t h, int64_t first_vector, int64_t count) {
    if (first != first_vector || vectors != count) std::fill_n(ring, kh * row_size, A(0));
    first = first_vector, vectors = count;
    next = std::max<int64_t>(0, h - kh / 2);
  }

  // Read what row h needs and the ring does not have yet.
  void read(const T* image, int64_t row_stride, int64_t h) {
    const int64_t halo = at.step == N ? kw / 2 : 0;
    const int64_t begin = std::max<int64_t>(0, first - halo), end = std::min(at.vectors, first + vectors + halo);
    for (const int64_t last = std::min(height - 1, h + kh / 2); next <= last; ++next)
      copy(image + next * row_stride, begin, end, slot(next) + kw / 2 * at.step + (begin - first) * N);
  }

  // Row h of bias + weights * what was read, into the tile's own row.
  void correlate(T* tile_row, int64_t h) {
    int64_t rows = 0;
    for_kernel_rows(h, [&](const A* row) { sources[rows++] = row; });
    const A* used = weights + first_row(h) * kw * N;
    int64_t i = 0;
    for (; i + 8 <= vectors; i += 8) correlate_block<8>(tile_row, rows, used, i);
    if (i + 4 <= vectors) correlate_block<4>(tile_row, rows, used, i), i += 4;
    if (i + 2 <= vectors) correlate_block<2>(tile_row, rows, used, i), i += 2;
    if (i < vectors) correlate_block<1>(tile_row, rows, used, i);
  }

  // Add row h of an image times what was read, tap by tap, and what was read itself.
  void add_products(const T* image_row, int64_t h) {
    copy(image_row, first, first + vectors, factor);
    const A* center = slot(h) + kw / 2 * at.step;
    Vector<A> sum = load(sums + taps() * N);
    for (int64_t i = 0; i < vectors; ++i) sum += load(center + i * N);
    store(sums + taps() * N, sum);
    int64_t count = 0;
    for_kernel_rows(h, [&](const A* row) {
      for (int64_t tx = 0; tx < kw; ++tx) sources[count++] = row + tx * at.step;
    });
    A* used = sums + first_row(h) * kw * N;
    int64_t t = 0;
    for (; t + 6 <= count; t += 6) product_block<6>(sources + t, used + t * N);
    switch (count - t) {
      case 5: product_block<5>(sources + t, used + t * N); break;
      case 4: product_block<4>(sources + t, used + t * N); break;
      case 3: product_block<3>(sources + t, used + t * N); break;
      case 2: product_block<2>(sources + t, used + t * N); break;
      case 1: product_block<1>(sources + t, used + t * N); break;
    }
    if ((pending += vectors) >= SUMMED_IN_A) finish_sums();
  }

  // The sums of all taps' products, lane by lane, and after the last tap that of what was read itself.
  const double* finish_sums() {
    for (int64_t i = 0; i < (taps() + 1) * N; ++i) long_sums[i] += sums[i], sums[i] = 0;
    pending = 0;
    return long_sums;
  }

  void clear_sums() { std::fill_n(long_sums, (taps() + 1) * N, 0.); }

 private:
  A* slot(int64_t row) const { return ring + row % kh * row_size; }
  // Rows of the kernel that are inside the image.
  int64_t first_row(int64_t h) const { return std::max<int64_t>(0, kh / 2 - h); }
  int64_t end_row(int64_t h) const { return std::min(kh, height + kh / 2 - h); }

  template <class Call> void for_kernel_rows(int64_t h, Call call) const {
    const A* row = slot(h + first_row(h) - kh / 2);
    for (int64_t ty = first_row(h); ty < end_row(h); ++ty) {
      call(row);
      row = row == ring + (kh - 1) * row_size ? ring : row + row_size;
    }
  }

  void copy(const T* row, int64_t begin, int64_t end, A* target) const {
    const T* source = row + at.offset + begin * at.stride;
    for (int64_t i = begin; i < end; ++i, source += at.stride, target += N)
      store(target, i < at.whole ? load(source) : load_part(source, at.begin, at.end));
  }

  // P vectors at once, so that their sums stay in registers and each weight is loaded once for all.
  template <int P> void correlate_block(T* tile_row, int64_t rows, const A* weight, int64_t i) const {
    Vector<A> result[P];
    for (int p = 0; p < P; ++p) result[p] = load(weights + taps() * N);
    for (int64_t row = 0; row < rows; ++row) {
      const A* source = sources[row] + i * N;
      for (int64_t tx = 0; tx < kw; ++tx, source += at.step, weight += N) {
        const Vector<A> w = load(weight);
        for (int p = 0; p < P; ++p) result[p] += w * load(source + p * N);
      }
    }
    T* target = tile_row + at.offset + i * at.stride;
    if (first + i + P <= at.whole) {
      for (int p = 0; p < P; ++p, target += at.stride) store(target, result[p]);
      return;
    }
    A results[P * N];  // not `result` itself, which would have to leave the registers for it
    for (int p = 0; p < P; ++p) store(results + p * N, result[p]);
    for (int p = 0; p < P; ++p, target += at.stride) {
      if (first + i + p < at.whole) store(target, load(results + p * N));
      else store_part(target, load(results + p * N), at.begin, at.end);
    }
  }

  // P taps at once, so that their sums stay in registers and each factor is loaded once for all.
  template <int P> void product_block(const A* const* first_source, A* result) const {
    const A* source[P];
    Vector<A> sum[P];
    for (int p = 0; p < P; ++p) source[p] = first_source[p], sum[p] = load(result + p * N);
    for (int64_t i = 0; i < vectors * N; i += N) {
      const Vector<A> f = load(factor + i);
      for (int p = 0; p < P; ++p) sum[p] += f * load(source[p] + i);
    }
    for (int p = 0; p < P; ++p) store(result + p * N, sum[p]);
  }

  Layout at;
  int64_t tile, height, kh, kw, row_size;
  int64_t first = 0, vectors = 0, next = 0, pending = 0;
  const A** sources = nullptr;  // where the kernel's rows, or its taps, begin in the ring
  A *weights = nullptr, *ring = nullptr, *sums = nullptr, *factor = nullptr;
  double* long_sums = nullptr;
};

// One direction. In each group of three: square, band along the width, band along the height.
template <class T> struct Pass {
  const T* input;  // x, or the gradient of y
  T* output;       // y, or the gradient of x; null where it is not wanted
  const Sum<T>* weights[3];
  bool flipped;
  const Sum<T>* biases[3];  // null: none
  const T* factor;          // x, for the gradients of the weights
  Sum<T>*grad_weights[3], *grad_biases[3];  // null where they are not wanted

  bool with_sums() const { return grad_weights[0]; }

  void set_weights(Strip<T>& strip, int kind, int64_t channel, int lane) const {
    const int64_t taps = strip.taps();
    const Sum<T>* weight = weights[kind] + channel * taps;
    for (int64_t t = 0; t < taps; ++t) strip.set_weight(flipped ? taps - 1 - t : t, lane, weight[t]);
    strip.set_weight(taps, lane, biases[kind] ? biases[kind][channel] : 0);
  }

  // Tap t of those that a strip sums is the weight at the opposite end.
  void set_gradient(int kind, int64_t channel, int64_t taps, int64_t t, double sum) const {
    if (t < taps) grad_weights[kind][channel * taps + taps - 1 - t] = Sum<T>(sum);
    else grad_biases[kind][channel] = Sum<T>(sum);
  }
};

// NHWC

// One vector of a branch's channels: its strip, and which of its lanes are which of the branch's channels.
template <class T> struct Part {
  int kind, begin;  // `begin` is the first lane that is the branch's own
  int64_t channel;  // of the branch, in lane 0
  Strip<T> strip;
};

// The parts of all branches, from the last channel to the first.
template <class T> std::vector<Part<T>> make_parts(const Shape& s, int64_t tile) {
  constexpr int N = LANES<Sum<T>>;
  std::vector<Part<T>> parts;
  parts.reserve(3 * ((s.branch + N - 1) / N));
  for (int kind = 2; kind >= 0; --kind)
    for (int64_t end = s.branch; end > 0; end -= N)
      parts.push_back({kind, int(std::max<int64_t>(0, N - end)), end - N,
                       {channel_lanes<T>(s.first(kind) + end - N, s.channels, s.width), tile, s.height, s.kh(kind),
                        s.kw(kind)}});
  return parts;
}

// Pixels of a tile: a multiple of 8, so few that what is kept of their rows stays in the first-level cache.
template <class T> int64_t tile_width(const Shape& s) {
  const int64_t most = s.channels * sizeof(T) <= 512 ? 16 : 8, tiles = (s.width + most - 1) / most;
  return std::min(s.width, ((s.width + tiles - 1) / tiles + 7) / 8 * 8);
}

// The identity channels of some pixels.
template <class T> void copy_identity(const T* source, T* target, const Shape& s, int64_t pixels) {
  const int64_t size = s.identity() * sizeof(T), step = s.channels * sizeof(T);
  const char* from = reinterpret_cast<const char*>(source);
  char* to = reinterpret_cast<char*>(target);
  for (int64_t i = 0; i < pixels; ++i, from += step, to += step) {
    if (size < VECTOR_BYTES) {
      std::memcpy(to, from, size);
      continue;
    }
    for (int64_t j = 0; j + VECTOR_BYTES < size; j += VECTOR_BYTES) std::memcpy(to + j, from + j, VECTOR_BYTES);
    std::memcpy(to + size - VECTOR_BYTES, from + size - VECTOR_BYTES, VECTOR_BYTES);
  }
}

// Rows begin to end of one image, tile by tile.
template <class T>
void take_rows(const Shape& s, const Pass<T>& pass, std::vector<Part<T>>& parts, T* tile_row, int64_t tile,
               int64_t image, int64_t begin, int64_t end) {
  const int64_t row_stride = s.width * s.channels, start = image * s.height * row_stride;
  // Where parts overlap, they are put together in `tile_row`, so that memory is written once and in order.
  const bool overlap = s.branch % LANES<Sum<T>>;
  for (int64_t column = 0; column < s.width; column += tile) {
    const int64_t pixels = std::min(tile, s.width - column);
    for (auto& part : parts) part.strip.start(begin, column, pixels);
    for (int64_t h = begin; h < end; ++h) {
      const int64_t row = start + h * row_stride, offset = row + column * s.channels;
      T* target = overlap || !pass.output ? tile_row : pass.output + offset;
      for (auto& part : parts) {
        part.strip.read(pass.input + start, row_stride, h);
        if (pass.output) part.strip.correlate(target, h);
        if (pass.with_sums()) part.strip.add_products(pass.factor + row, h);
      }
      if (!pass.output) continue;
      copy_identity(pass.input + offset, target, s, pixels);
      if (overlap) std::memcpy(pass.output + offset, tile_row, pixels * s.channels * sizeof(T));
    }
  }
}

template <class T> void run_nhwc(const Shape& s, const Pass<T>& pass, int threads) {
  constexpr int N = LANES<Sum<T>>;
  const int64_t tile = tile_width<T>(s), rows = s.images * s.height;
  // Sums of every thread, in the order of the parts, their taps and their lanes. They are added up in the order of the
  // threads, so that a run can be repeated to the last bit.
  std::vector<std::vector<double>> sums(threads);
#pragma omp parallel num_threads(threads)
  {
    auto parts = make_parts<T>(s, tile);
    int64_t bytes = Memory::bytes<T>(tile * s.channels);
    for (const auto& part : parts) bytes += part.strip.bytes(pass.with_sums());
    Memory memory(bytes);
    T* tile_row = memory.take<T>(tile * s.channels);
    for (auto& part : parts) {
      part.strip.take(memory, pass.with_sums());
      for (int lane = part.begin; lane < N; ++lane)
        pass.set_weights(part.strip, part.kind, part.channel + lane, lane);
    }
    const int64_t thread = omp_get_thread_num(), count = omp_get_num_threads();
    const int64_t end = rows * (thread + 1) / count;
    for (int64_t row = rows * thread / count, image = row / s.height; row < end; ++image) {
      const int64_t stop = std::min(end, (image + 1) * s.height);
      take_rows(s, pass, parts, tile_row, tile, image, row - image * s.height, stop - image * s.height);
      row = stop;
    }
    if (pass.with_sums())
      for (auto& part : parts) {
        const double* of_part = part.strip.finish_sums();
        sums[thread].insert(sums[thread].end(), of_part, of_part + (part.strip.taps() + 1) * N);
      }
  }
  if (!pass.with_sums()) return;
  int64_t i = 0;
  for (const auto& part : make_parts<T>(s, tile))
    for (int64_t t = 0; t <= part.strip.taps(); ++t, i += N)
      for (int lane = part.begin; lane < N; ++lane) {
        double sum = 0;
        for (const auto& of_thread : sums) sum += of_thread.empty() ? 0 : of_thread[i + lane];
        pass.set_gradient(part.kind, part.channel + lane, part.strip.taps(), t, sum);
      }
}

// NCHW

// All planes of one channel of a branch.
template <class T>
void take_planes(const Shape& s, const Pass<T>& pass, Strip<T>& strip, int kind, int64_t channel) {
  constexpr int N = LANES<Sum<T>>;
  for (int lane = 0; lane < N; ++lane) pass.set_weights(strip, kind, channel, lane);
  if (pass.with_sums()) strip.clear_sums();
  for (int64_t image = 0; image < s.images; ++image) {
    const int64_t start = (image * s.channels + s.first(kind) + channel) * s.height * s.width;
    strip.start(0, 0, (s.width + N - 1) / N);
    for (int64_t h = 0; h < s.height; ++h) {
      strip.read(pass.input + start, s.width, h);
      if (pass.output) strip.correlate(pass.output + start + h * s.width, h);
      if (pass.with_sums()) strip.add_products(pass.factor + start + h * s.width, h);
    }
  }
  if (!pass.with_sums()) return;
  const double* sums = strip.finish_sums();
  for (int64_t t = 0; t <= strip.taps(); ++t)
    pass.set_gradient(kind, channel, strip.taps(), t, std::accumulate(sums + t * N, sums + (t + 1) * N, 0.));
}

template <class T> void run_nchw(const Shape& s, const Pass<T>& pass, int threads) {
#pragma omp parallel num_threads(threads)
  {
    const Layout at = pixel_lanes<T>(s.width);
    std::vector<Strip<T>> strips;
    int64_t bytes = 0;
    for (int kind = 0; kind < 3; ++kind) {
      strips.emplace_back(at, at.vectors, s.height, s.kh(kind), s.kw(kind));
      bytes += strips[kind].bytes(pass.with_sums());
    }
    Memory memory(bytes);
    for (auto& strip : strips) strip.take(memory, pass.with_sums());
    // The last channels cost the most: they come first, so that the threads finish together.
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < s.channels; ++i) {
      const int64_t c = s.channels - 1 - i;
      if (c >= s.identity()) {
        const int kind = int((c - s.identity()) / s.branch);
        take_planes(s, pass, strips[kind], kind, c - s.first(kind));
      } else if (pass.output) {
        const int64_t area = s.height * s.width;
        for (int64_t image = 0; image < s.images; ++image) {
          const int64_t start = (image * s.channels + c) * area;
          std::memcpy(pass.output + start, pass.input + start, area * sizeof(T));
        }
      }
    }
  }
}

// From the C interface to the types

template <class T> void run(const Shape& s, const Pass<T>& pass, bool nhwc, int64_t threads) {
  // Fewer threads than allowed where starting them takes longer than their work; as few as torch's operators take.
  constexpr int64_t ELEMENTS_A_THREAD = 32768;
  const int64_t most = s.images * s.channels * s.height * s.width / ELEMENTS_A_THREAD;
  const int useful = int(std::max<int64_t>(1, std::min(threads, most)));
  if (nhwc) run_nhwc(s, pass, useful);
  else run_nchw(s, pass, useful);
}

template <class T>
void run(const Shape& s, bool nhwc, const void* input, void* output, const void* const* weights, bool flipped,
         const void* const* biases, const void* factor, void* const* grads, int64_t threads) {
  using W = const Sum<T>*;
  using G = Sum<T>*;
  run(s, Pass<T>{static_cast<const T*>(input), static_cast<T*>(output),
                 {W(weights[0]), W(weights[1]), W(weights[2])}, flipped, {W(biases[0]), W(biases[1]), W(biases[2])},
                 static_cast<const T*>(factor), {G(grads[0]), G(grads[1]), G(grads[2])},
                 {G(grads[3]), G(grads[4]), G(grads[5])}},
      nhwc, threads);
}

template <class... Arguments> void run_dtype(int64_t dtype, Arguments... arguments) {
  if (dtype == 0) run<float>(arguments...);
  else if (dtype == 1) run<bfloat16>(arguments...);
  else run<double>(arguments...);
}

}  // namespace

// dtype of x, y and their gradients: 0 float32, 1 bfloat16, 2 float64; of weights, biases and their gradients: float64
// with float64 and float32 with both others. Tensors are dense, NHWC where `nhwc` and NCHW otherwise, and not empty.
// Kernel sizes are odd.
extern "C" void inception_dwconv_forward(
    int64_t dtype, int64_t nhwc, const void* x, void* y, const void* weight_hw, const void* weight_w,
    const void* weight_h, const void* bias_hw, const void* bias_w, const void* bias_h, int64_t images,
    int64_t channels, int64_t height, int64_t width, int64_t branch, int64_t kernel_hw, int64_t kernel_w,
    int64_t kernel_h, int64_t threads) {
  const Shape s{images, channels, height, width, branch, {kernel_hw, kernel_w, kernel_h}};
  const void *weights[] = {weight_hw, weight_w, weight_h}, *biases[] = {bias_hw, bias_w, bias_h};
  void* const none[6] = {};
  run_dtype(dtype, s, bool(nhwc), x, y, weights, false, biases, nullptr, none, threads);
}

// grad_x may be null, and so may the six gradients of weights and biases, all of them or none.
extern "C" void inception_dwconv_backward(
    int64_t dtype, int64_t nhwc, const void* grad_y, const void* x, void* grad_x, const void* weight_hw,
    const void* weight_w, const void* weight_h, void* grad_weight_hw, void* grad_weight_w, void* grad_weight_h,
    void* grad_bias_hw, void* grad_bias_w, void* grad_bias_h, int64_t images, int64_t channels, int64_t height,
    int64_t width, int64_t branch, int64_t kernel_hw, int64_t kernel_w, int64_t kernel_h, int64_t threads) {
  const Shape s{images, channels, height, width, branch, {kernel_hw, kernel_w, kernel_h}};
  const void *weights[] = {weight_hw, weight_w, weight_h}, *none[] = {nullptr, nullptr, nullptr};
  void* const grads[] = {grad_weight_hw, grad_weight_w, grad_weight_h, grad_bias_hw, grad_bias_w, grad_bias_h};
  run_dtype(dtype, s, bool(nhwc), grad_y, grad_x, weights, true, none, x, grads, threads);
}
