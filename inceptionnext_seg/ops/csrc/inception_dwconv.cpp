// Inception depthwise convolution (arXiv:2303.16900), forward and backward, each in one pass over its tensors:
//
//     y = [x_identity | K_hw * x_hw + b_hw | K_w * x_w + b_w | K_h * x_h + b_h]  along the channels
//     dx = [dy_identity | flipped K_hw * dy_hw | ...],    dK[t] = sum of dy[p] x[p + t],    db = sum of dy
//
// with * the depthwise correlation with zero padding; the kernels are square k x k, band 1 x k (along the width) and
// band k x 1 (along the height), on `branch` channels each. All three are one thing here, a Strip (strip.h), and so are
// the two directions: they differ in what is read.
#include <omp.h>

#include <numeric>
#include <vector>

#include "strip.h"

namespace {

struct Shape {
    int64_t images, channels, height, width, branch, kernels[3];  // kernel sizes of square, band 1 x k, band k x 1
    int64_t identity() const { return channels - 3 * branch; }
    int64_t first(int kind) const { return identity() + kind * branch; }
    int64_t kh(int kind) const { return kind == 1 ? 1 : kernels[kind]; }
    int64_t kw(int kind) const { return kind == 2 ? 1 : kernels[kind]; }
};

// One direction. In each group of three: square, band along the width, band along the height.
template <class T> struct Pass {
    const T* input;  // x, or the gradient of y
    T* output;       // y, or the gradient of x; null where it is not needed
    const Compute<T>* weights[3];
    bool flipped;
    const Compute<T>* biases[3];  // null: none
    const T* factor;              // x, for the gradients of the weights
    Compute<T>*grad_weights[3], *grad_biases[3];  // null where they are not needed

    bool with_sums() const { return grad_weights[0]; }

    void set_weights(Strip<T>& strip, int kind, int64_t channel, int lane) const {
        const int64_t taps = strip.taps();
        const Compute<T>* weight = weights[kind] + channel * taps;
        for (int64_t t = 0; t < taps; ++t) strip.set_weight(flipped ? taps - 1 - t : t, lane, weight[t]);
        strip.set_weight(taps, lane, biases[kind] ? biases[kind][channel] : 0);
    }

    // Tap t of those that a strip sums is the weight at the opposite end.
    void set_gradient(int kind, int64_t channel, int64_t taps, int64_t t, double sum) const {
        if (t < taps) grad_weights[kind][channel * taps + taps - 1 - t] = Compute<T>(sum);
        else grad_biases[kind][channel] = Compute<T>(sum);
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
    constexpr int n = lanes<Compute<T>>;
    std::vector<Part<T>> parts;
    parts.reserve(3 * ((s.branch + n - 1) / n));
    for (int kind = 2; kind >= 0; --kind)
        for (int64_t end = s.branch; end > 0; end -= n)
            parts.push_back({kind, int(std::max<int64_t>(0, n - end)), end - n,
                             {channel_lanes<T>(s.first(kind) + end - n, s.channels, s.width), tile, s.height,
                              s.kh(kind), s.kw(kind)}});
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
        if (size < vector_bytes) {
            std::memcpy(to, from, size);
            continue;
        }
        for (int64_t j = 0; j + vector_bytes < size; j += vector_bytes) std::memcpy(to + j, from + j, vector_bytes);
        std::memcpy(to + size - vector_bytes, from + size - vector_bytes, vector_bytes);
    }
}

// Rows begin to end of one image, tile by tile.
template <class T>
void take_rows(const Shape& s, const Pass<T>& pass, std::vector<Part<T>>& parts, T* tile_row, int64_t tile,
               int64_t image, int64_t begin, int64_t end) {
    const int64_t row_stride = s.width * s.channels, start = image * s.height * row_stride;
    // Where parts overlap, they are put together in `tile_row`, so that memory is written once and in order.
    const bool overlap = s.branch % lanes<Compute<T>>;
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
    constexpr int n = lanes<Compute<T>>;
    const int64_t tile = tile_width<T>(s), rows = s.images * s.height;
    // Sums of every thread, in the order of the parts, their taps and their lanes. They are added up in the order of
    // the threads, so that a run can be repeated to the last bit.
    std::vector<std::vector<double>> sums(threads);
#pragma omp parallel num_threads(threads)
    {
        auto parts = make_parts<T>(s, tile);
        int64_t bytes = Arena::bytes<T>(tile * s.channels);
        for (const auto& part : parts) bytes += part.strip.bytes(pass.with_sums());
        Arena arena(bytes);
        T* tile_row = arena.take<T>(tile * s.channels);
        for (auto& part : parts) {
            part.strip.take(arena, pass.with_sums());
            for (int lane = part.begin; lane < n; ++lane)
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
                sums[thread].insert(sums[thread].end(), of_part, of_part + (part.strip.taps() + 1) * n);
            }
    }
    if (!pass.with_sums()) return;
    int64_t i = 0;
    for (const auto& part : make_parts<T>(s, tile))
        for (int64_t t = 0; t <= part.strip.taps(); ++t, i += n)
            for (int lane = part.begin; lane < n; ++lane) {
                double sum = 0;
                for (const auto& of_thread : sums) sum += of_thread.empty() ? 0 : of_thread[i + lane];
                pass.set_gradient(part.kind, part.channel + lane, part.strip.taps(), t, sum);
            }
}

// NCHW

// All planes of one channel of a branch.
template <class T>
void take_planes(const Shape& s, const Pass<T>& pass, Strip<T>& strip, int kind, int64_t channel) {
    constexpr int n = lanes<Compute<T>>;
    for (int lane = 0; lane < n; ++lane) pass.set_weights(strip, kind, channel, lane);
    if (pass.with_sums()) strip.clear_sums();
    for (int64_t image = 0; image < s.images; ++image) {
        const int64_t start = (image * s.channels + s.first(kind) + channel) * s.height * s.width;
        strip.start(0, 0, (s.width + n - 1) / n);
        for (int64_t h = 0; h < s.height; ++h) {
            strip.read(pass.input + start, s.width, h);
            if (pass.output) strip.correlate(pass.output + start + h * s.width, h);
            if (pass.with_sums()) strip.add_products(pass.factor + start + h * s.width, h);
        }
    }
    if (!pass.with_sums()) return;
    const double* sums = strip.finish_sums();
    for (int64_t t = 0; t <= strip.taps(); ++t)
        pass.set_gradient(kind, channel, strip.taps(), t, std::accumulate(sums + t * n, sums + (t + 1) * n, 0.));
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
        Arena arena(bytes);
        for (auto& strip : strips) strip.take(arena, pass.with_sums());
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
    constexpr int64_t elements_per_thread = 32768;
    const int64_t most = s.images * s.channels * s.height * s.width / elements_per_thread;
    const int useful = int(std::max<int64_t>(1, std::min(threads, most)));
    if (nhwc) run_nhwc(s, pass, useful);
    else run_nchw(s, pass, useful);
}

template <class T>
void run(const Shape& s, bool nhwc, const void* input, void* output, const void* const* weights, bool flipped,
         const void* const* biases, const void* factor, void* const* grads, int64_t threads) {
    using W = const Compute<T>*;
    using G = Compute<T>*;
    const Pass<T> pass{static_cast<const T*>(input), static_cast<T*>(output),
                       {W(weights[0]), W(weights[1]), W(weights[2])}, flipped,
                       {W(biases[0]), W(biases[1]), W(biases[2])}, static_cast<const T*>(factor),
                       {G(grads[0]), G(grads[1]), G(grads[2])}, {G(grads[3]), G(grads[4]), G(grads[5])}};
    run(s, pass, nhwc, threads);
}

template <class... Arguments> void run_dtype(int64_t dtype, Arguments... arguments) {
    if (dtype == 0) run<float>(arguments...);
    else if (dtype == 1) run<bf16>(arguments...);
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
