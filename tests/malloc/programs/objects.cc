// The containers and the operators of C++: prints a sum, and what new does when there is no room.
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

struct alignas(256) wide {
    char bytes[300];
};

static int handled;

static void handler()
{
    if (++handled == 3) {
        std::set_new_handler(nullptr);
    }
}

static long work(int seed)
{
    std::map<std::string, std::vector<int>> map;
    std::unordered_map<int, std::unique_ptr<std::string>> strings;
    long sum = 0;

    for (int i = 0; i < 50000; i++) {
        map[std::to_string(i * seed % 977)].push_back(i);
        strings[i % 1000] = std::make_unique<std::string>(std::to_string(i) + "and a long tail");
    }
    for (auto &entry : map) {
        std::sort(entry.second.rbegin(), entry.second.rend());
        sum += entry.second.front() + static_cast<long>(entry.first.size());
    }
    return sum + static_cast<long>(strings.size());
}

int main()
{
    long sums[4];
    std::vector<std::thread> threads;
    volatile std::size_t huge = static_cast<std::size_t>(-1) / 2 - 1000;

    for (int i = 0; i < 4; i++) {
        threads.emplace_back([&sums, i] { sums[i] = work(i + 3); });
    }
    for (auto &thread : threads) {
        thread.join();
    }
    std::cout << sums[0] << ' ' << sums[1] << ' ' << sums[2] << ' ' << sums[3] << '\n';

    auto *one = new wide;
    auto *many = new wide[7];
    if (reinterpret_cast<std::size_t>(one) % 256 || reinterpret_cast<std::size_t>(many) % 256) {
        return 1;
    }
    delete one;
    delete[] many;

    if (new (std::nothrow) char[huge] != nullptr) {
        return 2;
    }
    std::set_new_handler(handler);
    try {
        char *none = new char[huge];
        std::cout << static_cast<void *>(none) << '\n';
        return 3;
    } catch (const std::bad_alloc &) {
        std::cout << "bad_alloc after " << handled << " calls of the handler\n";
    }
    return 0;
}
