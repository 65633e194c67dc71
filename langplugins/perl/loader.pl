# Finding and loading applications. Compiled into the plugin; runs in the group's interpreter, in its manager and workers.
package Webserver;

use strict;
use warnings;
use IO::File;

our $VERSION = '1.1';

my @after_fork;
my %preloaded;    # path => [mark, code reference]: what was loaded before the fork

# For applications: run this in each new worker, before it takes requests. Connections are opened there, not shared.
sub after_fork {
    for my $hook (@_) {
        die "Webserver::after_fork: a code reference is expected\n" unless ref $hook eq 'CODE';
        push @after_fork, $hook;
    }
    return;
}

sub _begin {
    my ($application, $paths, $arguments, $watch) = @_;
    unshift @INC, @$paths;
    _watch($watch->[0]) if @$watch;
    @ARGV = @$arguments;
    $0 = defined $application ? $application : 'webserver';
    # What frameworks look at to see that they are asked for an application and not to be a server.
    $ENV{PLACK_ENV} = 'deployment' unless defined $ENV{PLACK_ENV};
    return;
}

my $watched;    # where names of loaded files go, for the group's option `watch`
my %told;

# What is loaded later, too: the hook is asked while a file is looked for in @INC, and leaves the finding to the others.
# What `use lib` has put before it is told with all else after the next file.
sub _watch {
    my ($descriptor) = @_;
    open $watched, '>&=', $descriptor or return;
    unshift @INC, sub {
        my (undef, $file) = @_;
        my ($path) = grep { -f } map { "$_/$file" } grep { !ref and m{^/} } @INC;
        _told($path) if defined $path;
        return;
    };
    return;
}

sub _told {
    for my $path (@_) {
        syswrite $watched, "$path\0" unless $told{$path}++;
    }
    return;
}

sub _preload {
    my ($names, $application) = @_;
    for my $name (@$names) {
        if ($name =~ m{^/}) {
            my $mark  = _mark($name);
            my $value = _run($name);
            my $code  = _code($value);
            if ($code) {
                $preloaded{$name} = [$mark, $code];
            } elsif (defined $application and $name eq $application) {
                _refuse($name, $value);
            }
        } else {
            (my $file = "$name.pm") =~ s{::}{/}g;
            require $file;
        }
    }
    return;
}

sub _forked {
    _disown() if DBI->can('visit_handles');
    my @hooks = @after_fork;
    $_->() for @hooks;
    return;
}

# A database handle that preloading has left is of one connection for all workers. The first one to end would take leave
# of the database for the others, whose next query fails.
sub _disown {
    DBI->visit_handles(
        sub {
            my ($handle) = @_;
            $handle->{InactiveDestroy} = 1 unless $handle->{Type} eq 'dr';
            return 1;
        }
    );
    return;
}

# The application of a file: its last value.
sub _load {
    my ($path, $again) = @_;
    my $before = delete $preloaded{$path};
    return $before->[1] if $before and !$again and $before->[0] eq _mark($path);
    my $value = _run($path);
    return _code($value) || _refuse($path, $value);
}

# A requested file, in its own directory, with what Plack gives a file: a package of its own, $0, no arguments.
sub _requested {
    my ($path, $again) = @_;
    local @ARGV;
    # What it requires by a relative path is its own: another file means another one by the same name.
    my @before = grep { m{^\.\.?/} } keys %INC;
    local @INC{@before};
    delete @INC{@before};
    my $code = _load($path, $again);
    delete @INC{grep { m{^\.\.?/} } keys %INC};
    return $code;
}

sub _mark {
    my @state = stat $_[0];
    return join ' ', @state[1, 7, 9];
}

sub _run {
    my ($path) = @_;
    die "$path: $!\n" unless open my $file, '<', $path;
    close $file;
    (my $name = $path) =~ s/([^A-Za-z0-9_])/sprintf '_%02x', ord $1/ge;
    my $package = "Plack::Sandbox::$name";
    {
        # What an earlier version of the file has defined is gone, and does not come back as a warning.
        no strict 'refs';
        %{"${package}::"} = ();
    }
    local $0 = $path;
    FindBin->again if FindBin->can('again');
    my ($value, $failure);
    {
        local $@;
        # What `do` says in $@ is gone once eval has succeeded.
        eval "package $package; \$value = do \$path; \$failure = \$@";
    }
    _told(grep { defined and !ref and m{^/} } values %INC) if $watched;
    die $failure if ref $failure or length $failure;
    return $value;
}

sub _code {
    my ($value) = @_;
    return unless ref $value;
    return $value if ref $value eq 'CODE';
    $value = $value->to_app if UNIVERSAL::can($value, 'to_app');
    return $value if ref $value eq 'CODE';
    local $@;
    return eval { \&$value };
}

sub _refuse {
    my ($path, $value) = @_;
    my $what = !defined $value ? 'undef' : ref $value ? 'a reference to ' . ref $value : qq("$value");
    die "$path: its last value is $what, expected the application, a code reference\n";
}

# An exception in words. It must not die, whatever class it is of.
sub _text {
    my ($error) = @_;
    local $@;
    local $SIG{__DIE__};
    my $class = ref $error;
    my $text = eval { "$error" };
    return "an exception of class $class that cannot be put into words" unless defined $text;
    return $text unless $text =~ /\A\Q$class\E=?[A-Z]*\(0x[0-9a-f]+\)\z/;
    # It has no words of its own.
    for my $method (qw(as_string message)) {
        next unless UNIVERSAL::can($error, $method);
        my $said = eval { $error->$method };
        return "$class: $said" if defined $said;
    }
    if (UNIVERSAL::isa($error, 'HASH')) {
        my @known = map { my $value = $error->{$_}; "$_ => " . (defined $value ? $value : 'undef') } sort keys %$error;
        return "$text {" . join(', ', @known) . '}';
    }
    return $text;
}

1;
