# The Homebrew formula; tests/package.sh and the release workflow fill in what stands between @.
# On a Mac it builds from source, and that is experimental: type-checked, never run by its authors.
class PipelineState < Formula
  desc "Crash-safe shared state, locks and checkpoints for shell scripts and hooks"
  homepage "@URL@"
  version "@VERSION@"
  license "MIT"

  on_linux do
    on_intel do
      url "@URL@/@STEM@.tar.gz"
      sha256 "@SHA256@"
    end
  end

  on_macos do
    url "@URL@/pipeline-state-@VERSION@-source.tar.gz"
    sha256 "@SOURCE_SHA256@"
    depends_on "rust" => :build
  end

  def install
    if OS.mac?
      system "cargo", "install", *std_cargo_args
      generate_completions_from_executable(bin/"pipeline-state", "completions")
      system bin/"pipeline-state", "man", man1
    else
      bin.install "pipeline-state"
      man1.install Dir["man/*.1.gz"]
      bash_completion.install "completions/pipeline-state.bash" => "pipeline-state"
      zsh_completion.install "completions/_pipeline-state"
      fish_completion.install "completions/pipeline-state.fish"
    end
  end

  test do
    system bin/"pipeline-state", "state", "init", "-q"
    system bin/"pipeline-state", "set", "phase=build", "-q"
    assert_equal "build\n", shell_output("#{bin}/pipeline-state state phase")
  end
end
