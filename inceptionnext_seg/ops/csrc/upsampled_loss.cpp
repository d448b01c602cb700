// Bilinear interpolation and what follows it in one pass: cross-entropy with its gradient, or the best class.
//
// Logits are (images, height, width, classes), classes fastest. An output row is interpolated vertically into a buffer
// of low-resolution width, and horizontally one pixel at a time, so that no more than a row exists at any time. Buffers
// have their classes padded to whole vectors with a number so low that its exponential is 0 and no class is below it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

namespace {

constexpr int64_t kLanes = 16;

template <class T>
constexpr T padding = std::numeric_limits<T>::lowest() / 4;  // finite: an interpolation multiplies it with 0

template <class T>
class Buffer {
 public:
  Buffer(int64_t size, T value) : data_(static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(64)))) {
    std::fill(data_, data_ + size, value);
  }
  ~Buffer() { ::operator delete(data_, std::align_val_t(64)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* at(int64_t offset) const { return data_ + offset; }

 private:
  T* data_;
};

inline double exponential(double x) { return std::exp(x); }

// e^x for x <= 0, relative error below 2e-7; 0 where it would be below the least normal number; NaN for NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2; the polynomial is the minimax one for e^r, 1 + r + r^2 q(r).
inline float exponential(float x) {
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first exact
  float q = 0.0013814461f;
  q = q * r + 0.008368781f;
  q = q * r + 0.041668393f;
  q = q * r + 0.1666652f;
  q = q * r + 0.49999994f;
  const float value = q * r * r + r + 1.f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127u) << 23;  // the bits of kRound are shifted out
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return x < -87.3f ? 0.f : value * scale;
}

// A size that a vector loop needs no remainder for.
inline int64_t whole_vectors(int64_t size) {
  if (size % kLanes) __builtin_unreachable();
  return size;
}

// out = wa a + wb b, and its largest element. `out` may be a or b.
template <class T>
T blend(const T* a, const T* b, T wa, T wb, int64_t size, T* out) {
  T largest = -std::numeric_limits<T>::infinity();
  size = whole_vectors(size);
#pragma omp simd reduction(max : largest)
  for (int64_t c = 0; c < size; ++c) {
    const T value = wa * a[c] + wb * b[c];
    out[c] = value;
    largest = value > largest ? value : largest;
  }
  return largest;
}

// Row of (width, classes) into a buffer of (width, padded): buffer = w row, or buffer += w row.
template <bool add, class T>
void take_row(const T* row, T w, int64_t width, int64_t classes, int64_t padded, T* buffer) {
  for (int64_t x = 0; x < width; ++x) {
    const T* from = row + x * classes;
    T* to = buffer + x * padded;
#pragma omp simd
    for (int64_t c = 0; c < classes; ++c) to[c] = add ? to[c] + w * from[c] : w * from[c];
  }
}

struct alignas(64) Sums {  // a cache line each: threads add to neighbours at the same time
  double loss = 0, weight = 0, pixels = 0, correct = 0, invalid = 0;
};

template <class T>
struct Loss {
  const T* logits;
  const int64_t* labels;  // (images, out_height, out_width)
  int64_t images, height, width, classes, out_height, out_width;
  const int64_t *start_y, *start_x;  // for each output row and column, the first of its two input rows and columns
  const T *weight_y, *weight_x;      // and the weights of the two; where the input has but one, the second is 0
  const T *weight, *hard, *even;     // (classes), see upsampled_loss.py; without label smoothing `even` is null
  int64_t ignore_index;
  T* gradient;  // like logits, zeros; or null

  int64_t padded() const { return (classes + kLanes - 1) / kLanes * kLanes; }

  // One output row. `row` and `row_gradient` are (max(width, 2), padded), `pixel` and `smooth` (padded).
  template <bool smoothing>
  void run_row(const T* row, const int64_t* label, T* row_gradient, T* pixel, const T* smooth, T smooth_sum,
               Sums& sums) const {
    const int64_t size = whole_vectors(padded());
    for (int64_t x = 0; x < out_width; ++x) {
      const int64_t y = label[x];
      if (y == ignore_index) continue;
      ++sums.pixels;
      if (y < 0 || y >= classes) {
        ++sums.invalid;
        continue;
      }
      const int64_t left = start_x[x] * size;
      const T wa = weight_x[2 * x], wb = weight_x[2 * x + 1];
      const T largest = blend(row + left, row + left + size, wa, wb, size, pixel);
      const T target = pixel[y] - largest;
      // Of equal logits the first counts as the prediction, as in argmax.
      if (target == 0) sums.correct += std::find(pixel, pixel + y, largest) == pixel + y;

      T sum = 0, smooth_loss = 0;
#pragma omp simd reduction(+ : sum, smooth_loss)
      for (int64_t c = 0; c < size; ++c) {
        const T difference = pixel[c] - largest;
        if (smoothing) smooth_loss -= smooth[c] * difference;
        const T power = exponential(difference);
        pixel[c] = power;
        sum += power;
      }
      const T log_sum = std::log(sum);
      sums.weight += weight[y];
      sums.loss += hard[y] * (log_sum - target);
      if (smoothing) sums.loss += smooth_sum * log_sum + smooth_loss;

      if (!row_gradient) continue;
      const T scale = (hard[y] + smooth_sum) / sum;
      T* ga = row_gradient + left;
      T* gb = ga + size;
#pragma omp simd
      for (int64_t c = 0; c < size; ++c) {
        T g = scale * pixel[c];
        if (smoothing) g -= smooth[c];
        ga[c] += wa * g;
        gb[c] += wb * g;
      }
      ga[y] -= wa * hard[y];
      gb[y] -= wb * hard[y];
    }
  }

  void run(int64_t threads, double* result) const {
    const int64_t row_size = std::max<int64_t>(width, 2) * padded();
    const int64_t next = height > 1 ? width * classes : 0;
    // Output rows between the same two input rows are one task; rows that begin at `above` are [first, first + 1).
    std::vector<int64_t> first(height + 1, out_height);
    for (int64_t y = out_height - 1; y >= 0; --y) first[start_y[y]] = y;
    for (int64_t above = height - 1; above >= 0; --above) first[above] = std::min(first[above], first[above + 1]);
    std::vector<Sums> sums(images * height);

#pragma omp parallel num_threads(threads)
    {
      Buffer<T> row(row_size, padding<T>), row_gradient(row_size, 0), pixel(padded(), 0), smooth(padded(), 0);
      T smooth_sum = 0;
      if (even) {
        std::copy(even, even + classes, smooth.at(0));
        for (int64_t c = 0; c < classes; ++c) smooth_sum += even[c];
      }
      // A task adds to the gradient of its two input rows: even tasks never meet each other, nor do odd ones, and each
      // input row gets its sums in the same order whatever the number of threads.
      for (int64_t parity = 0; parity < 2; ++parity) {
        const int64_t tasks = (height + 1 - parity) / 2;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < images * tasks; ++task) {
          const int64_t image = task / tasks, above = task % tasks * 2 + parity;
          const int64_t offset = (image * height + above) * width * classes;
          for (int64_t y = first[above]; y < first[above + 1]; ++y) {
            take_row<false>(logits + offset, weight_y[2 * y], width, classes, padded(), row.at(0));
            take_row<true>(logits + offset + next, weight_y[2 * y + 1], width, classes, padded(), row.at(0));
            if (gradient) std::fill(row_gradient.at(0), row_gradient.at(row_size), T(0));
            const auto step = even ? &Loss::run_row<true> : &Loss::run_row<false>;
            (this->*step)(row.at(0), labels + (image * out_height + y) * out_width,
                          gradient ? row_gradient.at(0) : nullptr, pixel.at(0), smooth.at(0), smooth_sum,
                          sums[image * height + above]);
            if (!gradient) continue;
            for (int64_t x = 0; x < width; ++x) {
              const T* from = row_gradient.at(x * padded());
              T* upper = gradient + offset + x * classes;
              T* lower = upper + next;  // the same row where there is but one, with weight 0
#pragma omp simd
              for (int64_t c = 0; c < classes; ++c) upper[c] += weight_y[2 * y] * from[c];
              if (next)
#pragma omp simd
                for (int64_t c = 0; c < classes; ++c) lower[c] += weight_y[2 * y + 1] * from[c];
            }
          }
        }
      }
    }
    std::fill(result, result + 5, 0.);
    for (const Sums& s : sums) {
      const double parts[] = {s.loss, s.weight, s.pixels, s.correct, s.invalid};
      for (int i = 0; i < 5; ++i) result[i] += parts[i];
    }
  }
};

// The class of the largest interpolated logit, the first of equal ones. Each output row is a sum of `taps_y` input rows
// from start_y on, each column of `taps_x`. NaN is never the largest; where all is NaN the class is 0.
template <class T>
void argmax(const T* logits, int64_t images, int64_t height, int64_t width, int64_t classes, int64_t out_height,
            int64_t out_width, int64_t taps_y, int64_t taps_x, const int64_t* start_y, const T* weight_y,
            const int64_t* start_x, const T* weight_x, int64_t threads, int64_t* result) {
  const int64_t size = (classes + kLanes - 1) / kLanes * kLanes;
#pragma omp parallel num_threads(threads)
  {
    Buffer<T> row(width * size, padding<T>), pixel(size, 0);
    T* const values = pixel.at(0);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < images * out_height; ++task) {
      const int64_t image = task / out_height, y = task % out_height;
      const T* from = logits + (image * height + start_y[y]) * width * classes;
      take_row<false>(from, weight_y[y * taps_y], width, classes, size, row.at(0));
      for (int64_t k = 1; k < taps_y; ++k)
        take_row<true>(from + k * width * classes, weight_y[y * taps_y + k], width, classes, size, row.at(0));
      for (int64_t x = 0; x < out_width; ++x) {
        const T* a = row.at(start_x[x] * size);
        const T* w = weight_x + x * taps_x;
        T largest = taps_x == 1 ? blend(a, a, w[0] / 2, w[0] / 2, size, values)
                                : blend(a, a + size, w[0], w[1], size, values);
        for (int64_t k = 2; k < taps_x; ++k) largest = blend(a + k * size, values, w[k], T(1), size, values);
        int32_t best = static_cast<int32_t>(classes);
        const int32_t last = static_cast<int32_t>(whole_vectors(size));
#pragma omp simd reduction(min : best)
        for (int32_t c = 0; c < last; ++c) best = std::min(best, values[c] == largest ? c : last);
        result[task * out_width + x] = best < classes ? best : 0;
      }
    }
  }
}

}  // namespace

#define INCEPTIONNEXT_SEG_UPSAMPLED(NAME, T)                                                                           \
  extern "C" void upsampled_loss_##NAME(                                                                               \
      const T* logits, const int64_t* labels, int64_t images, int64_t height, int64_t width, int64_t classes,          \
      int64_t out_height, int64_t out_width, const int64_t* start_y, const T* weight_y, const int64_t* start_x,        \
      const T* weight_x, const T* weight, const T* hard, const T* even, int64_t ignore_index, int64_t threads,         \
      T* gradient, double* result) {                                                                                   \
    Loss<T>{logits,  labels,  images,   height,   width,  classes, out_height, out_width,    start_y,                 \
            start_x, weight_y, weight_x, weight, hard,   even,    ignore_index, gradient}                              \
        .run(threads, result);                                                                                         \
  }                                                                                                                    \
  extern "C" void upsampled_argmax_##NAME(                                                                             \
      const T* logits, int64_t images, int64_t height, int64_t width, int64_t classes, int64_t out_height,             \
      int64_t out_width, int64_t taps_y, int64_t taps_x, const int64_t* start_y, const T* weight_y,                    \
      const int64_t* start_x, const T* weight_x, int64_t threads, int64_t* result) {                                   \
    argmax(logits, images, height, width, classes, out_height, out_width, taps_y, taps_x, start_y, weight_y, start_x,  \
           weight_x, threads, result);                                                                                 \
  }
INCEPTIONNEXT_SEG_UPSAMPLED(float, float)
INCEPTIONNEXT_SEG_UPSAMPLED(double, double)
